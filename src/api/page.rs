//! GraphiQL's page for people, and what a browser is told of it: which scripts may run is decided by what the
//! page has, not by what might get into it.

use async_graphql::http::GraphiQLSource;
use axum::{
    http::header,
    response::{Html, IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// Where the page's programs and styles come from.
const LIBRARY: &str = "https://unpkg.com";

pub(super) fn page() -> Response {
    let page = GraphiQLSource::build()
        .endpoint("/graphql")
        .subscription_endpoint("/graphql")
        .title("Infinibay")
        .finish();
    ([(header::CONTENT_SECURITY_POLICY, policy(&page))], Html(page)).into_response()
}

/// Its own scripts by their checksums, those of its library, and sockets to here.
fn policy(page: &str) -> String {
    let own = page.split("<script>").skip(1).filter_map(|rest| rest.split("</script>").next());
    let own: String =
        own.map(|script| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)))).collect();
    format!(
        "default-src 'none'; script-src {LIBRARY}{own}; style-src {LIBRARY} 'unsafe-inline'; \
         font-src {LIBRARY} data:; img-src https://graphql.org {LIBRARY} data:; worker-src blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_run_by_their_checksum() {
        let told = policy("<script src=\"x\"></script><script>one</script><b><script>two</script>");
        let sum = |script: &str| STANDARD.encode(Sha256::digest(script));
        let scripts = format!("script-src {LIBRARY} 'sha256-{}' 'sha256-{}';", sum("one"), sum("two"));
        assert!(told.contains(&scripts), "{told}");
    }
}
