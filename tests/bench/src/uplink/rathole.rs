//! rathole: a tunnel for each flow, whose services are beside the camera and whose visitors are beside the server.

use std::sync::Arc;
use std::time::Duration;

use camagent_testkit::emulator::FAR;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::traffic::{Flow, Inlet, Outlet, Traffic, drain, feed};
use crate::programs::{Contender, Ground, Place, Service, Tunnel};
use crate::stage::Stage;

/// A visitor that hears nothing for so long tries again: the tunnel is not there yet.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts both ends and a visitor of each tunnel.
pub(crate) fn start(stage: &Stage, ground: &Ground, traffic: &Arc<Traffic>) -> Result<Tunnel, String> {
    let place = Place { sides: Some((&stage.link.near, &stage.link.far)), address: FAR };
    let mut services = Vec::new();
    let flows = traffic.load.flows();
    for flow in &flows {
        let bound = stage.near.run(TcpListener::bind(("127.0.0.1", 0)));
        let listener = bound.map_err(|error| format!("the camera's service: {error}"))?;
        let source = listener.local_addr().map_err(|error| error.to_string())?;
        services.push(Service { name: flow.name(), source });
        stage.near.spawn(serve(listener, Arc::clone(traffic), *flow));
    }
    let contender = Contender::named("rathole")?;
    let mut tunnel = (contender.start)(ground, &place, &services)?;
    for (number, flow) in flows.into_iter().enumerate() {
        let door = tunnel.doors[number];
        let mut visitor = None;
        tunnel.wait(|| {
            visitor = Some(stage.far.run(visit(door))?);
            Ok(())
        })?;
        if let Some(visitor) = visitor {
            stage.far.spawn(drain(Arc::clone(traffic), flow, Inlet::Octets(Box::new(visitor))));
        }
    }
    Ok(tunnel)
}

/// Greets each visitor, and feeds the one that answers.
async fn serve(listener: TcpListener, traffic: Arc<Traffic>, flow: Flow) {
    while let Ok((mut visitor, _)) = listener.accept().await {
        let traffic = Arc::clone(&traffic);
        tokio::spawn(async move {
            let greeted = visitor.set_nodelay(true).is_ok() && visitor.write_all(&flow.greeting()).await.is_ok();
            if greeted && visitor.read_u8().await.is_ok() {
                feed(traffic, flow, Outlet::Octets(Box::new(visitor))).await;
            }
        });
    }
}

/// A visitor whose service has greeted it.
async fn visit(door: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let greeted = async {
        let mut stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let greeting = stream.read_u8().await?;
        stream.write_u8(greeting).await?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, greeted).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
