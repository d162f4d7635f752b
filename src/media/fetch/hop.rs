//! From one URL to the next.

use reqwest::{Url, header::HeaderValue};

use crate::media::failure::Failure;

/// Longest URL.
pub(in crate::media) const MAX_URL: usize = 2048;

/// Reads a URL that may be asked; what is wrong with it otherwise.
pub(in crate::media) fn checked(url: &str) -> Result<Url, &'static str> {
    if url.len() > MAX_URL {
        return Err("has more than 2,048 bytes");
    }
    let mut url = Url::parse(url).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password; these are not kept");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host");
    }
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn parse(url: &str) -> Result<Url, Failure> {
    checked(url).map_err(|why| Failure::over("HTTP_FAILED", format!("the URL {why}")))
}

/// Its host, as connections name it, and its port.
pub(super) fn host_of(url: &Url) -> Result<(String, u16), Failure> {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok((host.to_owned(), port)),
        _ => Err(Failure::over("HTTP_FAILED", "the URL names no host")),
    }
}

/// Where a redirect leads. One from https to http is followed only where the whole will be held
/// against a checksum.
pub(super) fn next(url: &Url, location: Option<&HeaderValue>, has_checksum: bool) -> Result<Url, Failure> {
    let refused =
        |why: &str| Failure::mendable("REDIRECT_REFUSED", format!("the server redirects to what {why}"));
    let location = location.and_then(|value| value.to_str().ok()).ok_or_else(|| refused("is no URL"))?;
    let joined = url.join(location).map_err(|_| refused("is no URL"))?;
    let next = checked(joined.as_str()).map_err(refused)?;
    if url.scheme() == "https" && next.scheme() == "http" && !has_checksum {
        return Err(refused("is http, from https; give the file's sha256, and it is followed"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_only_and_not_down() {
        let at = |url: &str| Url::parse(url).unwrap();
        let go = |from: &str, to: &str, has_checksum| {
            next(&at(from), Some(&HeaderValue::from_str(to).unwrap()), has_checksum)
        };
        assert_eq!(go("https://a/x/y", "../z?q#f", false).unwrap().as_str(), "https://a/z?q");
        assert_eq!(go("https://a/x", "//b/z", false).unwrap().as_str(), "https://b/z");
        assert_eq!(go("http://a/x", "https://b/", false).unwrap().as_str(), "https://b/");
        assert_eq!(go("https://a/x", "http://b/", true).unwrap().as_str(), "http://b/");
        for (to, why) in [
            ("http://b/", "sha256"),
            ("file:///etc/shadow", "neither http nor https"),
            ("ftp://b/", "neither http nor https"),
            ("gopher://127.0.0.1:11211/", "neither http nor https"),
            ("https://u:p@b/", "user or a password"),
            ("https://", "no URL"),
        ] {
            let refused = go("https://a/x", to, false).unwrap_err();
            assert!(refused.message.contains(why), "{to}: {refused:?}");
        }
        assert!(next(&at("https://a/"), None, false).is_err());
        // However an address is written, it is judged as what it is.
        for (url, host) in
            [("http://0x7f.1/", "127.0.0.1"), ("http://2130706433/", "127.0.0.1"), ("http://[::1]/", "[::1]")]
        {
            assert_eq!(host_of(&at(url)).unwrap(), (host.to_owned(), 80), "{url}");
        }
    }
}
