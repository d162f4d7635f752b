//! What an answer's head means.

use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED},
};

/// Longest entity tag that is kept.
const MAX_VALIDATOR: usize = 256;

/// Which part of the file comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// From where it was asked on; the length of the whole, where it is said.
    Rest(Option<u64>),
    /// Something that does not go on with what is there.
    Another,
    /// Nothing.
    Refused,
}

/// Which part comes, where `from` was asked for.
pub(super) fn part(status: StatusCode, headers: &HeaderMap, from: u64) -> Part {
    match status {
        StatusCode::OK => Part::Whole,
        StatusCode::PARTIAL_CONTENT if from > 0 => {
            let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            match range.and_then(read_range) {
                Some((begin, total)) if begin == from && total.is_none_or(|total| total >= from) => {
                    Part::Rest(total)
                }
                _ => Part::Another,
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Part::Another,
        _ => Part::Refused,
    }
}

/// `bytes 5-99/100`, or `/*`.
fn read_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, _) = span.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((begin.parse().ok()?, total))
}

/// What tells this state of the file from another: a strong entity tag, else a date.
pub(super) fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| {
        let value = headers.get(name)?.to_str().ok()?;
        (!value.is_empty() && value.len() <= MAX_VALIDATOR).then(|| value.to_owned())
    };
    text(ETAG).filter(|tag: &String| tag.starts_with('"')).or_else(|| text(LAST_MODIFIED))
}

/// Whether an answer belongs to another state of the file than the one that `known` marks.
pub(super) fn contradicts(headers: &HeaderMap, known: Option<&str>) -> bool {
    let Some(known) = known else { return false };
    let now = if known.starts_with('"') { headers.get(ETAG) } else { headers.get(LAST_MODIFIED) };
    now.is_some_and(|now| now.as_bytes() != known.as_bytes())
}

/// Whether the same may go well later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_comes_is_the_one_that_was_asked_for_or_none() {
        let part_of = |status: u16, range: Option<&str>, from| {
            let mut headers = HeaderMap::new();
            if let Some(range) = range {
                headers.insert(CONTENT_RANGE, range.parse().unwrap());
            }
            part(StatusCode::from_u16(status).unwrap(), &headers, from)
        };
        assert_eq!(part_of(200, None, 5), Part::Whole);
        assert_eq!(part_of(206, Some("bytes 5-9/10"), 5), Part::Rest(Some(10)));
        assert_eq!(part_of(206, Some("bytes 5-9/*"), 5), Part::Rest(None));
        for lie in
            ["bytes 4-9/10", "bytes 5-9/4", "bytes 5-9", "lines 5-9/10", "bytes x-9/10", "bytes 5-9/-1"]
        {
            assert_eq!(part_of(206, Some(lie), 5), Part::Another, "{lie}");
        }
        assert_eq!(part_of(206, None, 5), Part::Another);
        assert_eq!(part_of(416, None, 5), Part::Another);
        assert_eq!(part_of(206, Some("bytes 0-9/10"), 0), Part::Refused);
        for status in [204, 304, 404, 416, 500] {
            assert_eq!(part_of(status, None, 0), Part::Refused, "{status}");
        }
    }

    #[test]
    fn a_part_of_another_state_is_told() {
        let says = |etag: Option<&str>, date: Option<&str>, known: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ETAG, etag), (LAST_MODIFIED, date)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            contradicts(&headers, known)
        };
        let (before, after) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:01 GMT");
        assert!(says(Some("\"b\""), Some(before), Some("\"a\"")));
        assert!(says(Some("W/\"a\""), None, Some("\"a\"")));
        assert!(says(None, Some(after), Some(before)));
        assert!(!says(Some("\"a\""), Some(after), Some("\"a\"")));
        assert!(!says(None, Some(after), Some("\"a\"")));
        assert!(!says(Some("\"b\""), None, None));
    }

    #[test]
    fn only_a_strong_mark_tells_states_apart() {
        let of = |tag: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, tag.parse().unwrap());
            if let Some(date) = date {
                headers.insert(LAST_MODIFIED, date.parse().unwrap());
            }
            validator(&headers)
        };
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(of("\"a\"", Some(date)).as_deref(), Some("\"a\""));
        assert_eq!(of("W/\"a\"", Some(date)).as_deref(), Some(date));
        assert_eq!(of("W/\"a\"", None), None);
        assert_eq!(of(&format!("\"{}\"", "a".repeat(300)), None), None);
    }
}
