//! The cameras' own servers: whether their ports take connections.

use std::time::Duration;

use super::{Check, Report, millis, place, server::knock};
use crate::config::{CameraConfig, Config};

pub(super) async fn examine<T: FnMut(&Check)>(config: &Config, patience: Duration, report: &mut Report<T>) {
    for camera in &config.cameras {
        services(camera, patience, report).await;
    }
}

async fn services<T: FnMut(&Check)>(camera: &CameraConfig, patience: Duration, report: &mut Report<T>) {
    for service in &camera.services {
        let subject = format!("{}/{}", camera.id, service.name);
        match knock(&service.host, service.port, patience).await {
            Ok(took) => {
                report.ok("service", &subject, format!("{} ({})", place(&service.host, service.port), millis(took)));
            }
            Err((measured, advice)) => report.fail("service", &subject, measured, advice),
        }
    }
}
