//! The description of the API (OpenAPI 3.1), generated from the handlers. `camagent-cloud openapi` prints it; the copy in
//! `cloud-server/api/openapi.json` is compared with the code by a test.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{recordings, routes};

#[derive(OpenApi)]
#[openapi(
    info(title = "camagent-cloud", description = "Agents, their cameras, and commands to them."),
    paths(
        routes::health,
        routes::agents,
        routes::agent,
        routes::control,
        routes::data,
        routes::streams,
        routes::metrics,
        recordings::recordings,
        recordings::clip
    ),
    modifiers(&BearerToken)
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API token made by `camagent-cloud token add NAME`."))
            .build();
        let components = description.components.get_or_insert_with(Default::default);
        components.add_security_scheme("api_token", SecurityScheme::Http(scheme));
        description.security = Some(vec![SecurityRequirement::new("api_token", Vec::<String>::new())]);
    }
}

/// The description.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The description as it stands in the file, ending in a line end.
#[must_use]
pub fn text() -> String {
    let mut text = description().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/api/openapi.json");
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(file == super::text(), "run: cargo run -p cloud-server -- openapi > cloud-server/api/openapi.json");
        for path in
            ["/health", "/agents", "/agents/{id}", "/agents/{id}/control", "/agents/{id}/data", "/streams", "/metrics"]
        {
            assert!(super::description().paths.paths.contains_key(path), "{path}");
        }
    }
}
