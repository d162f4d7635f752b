//! Which part of a file is asked for: a download that broke off goes on where it ended.

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// So many bytes from here on; at least one.
    Bytes { first: u64, count: u64 },
    /// There is no such part.
    None,
}

/// Reads a `Range` header. One that is no range of bytes, or names several, asks for all, as the standard
/// lets it.
pub(super) fn part(range: Option<&str>, length: u64) -> Part {
    let one = range.and_then(|range| range.trim().strip_prefix("bytes=")).and_then(|one| one.split_once('-'));
    let Some((first, last)) = one else { return Part::Whole };
    let number = |text: &str| {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Part::Whole,
        (Some(first), _) if first >= length && (last.trim().is_empty() || number(last).is_some()) => {
            Part::None
        }
        (Some(first), Some(last)) => Part::Bytes { first, count: last.min(length - 1) - first + 1 },
        (Some(first), None) if last.trim().is_empty() => Part::Bytes { first, count: length - first },
        // The last so many bytes.
        (None, Some(0)) if first.trim().is_empty() => Part::None,
        (None, Some(_)) if first.trim().is_empty() && length == 0 => Part::None,
        (None, Some(count)) if first.trim().is_empty() => {
            let count = count.min(length);
            Part::Bytes { first: length - count, count }
        }
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let bytes = |first, count| Part::Bytes { first, count };
        for (range, wanted) in [
            ("bytes=0-0", bytes(0, 1)),
            ("bytes=2-", bytes(2, 8)),
            ("bytes=2-4", bytes(2, 3)),
            ("bytes=2-400", bytes(2, 8)),
            ("bytes=-3", bytes(7, 3)),
            ("bytes=-300", bytes(0, 10)),
            ("bytes=9-99999999999999999999999", bytes(9, 1)),
            ("bytes=10-", Part::None),
            ("bytes=10-12", Part::None),
            ("bytes=99999999999999999999999-", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(Some(range), 10), wanted, "{range}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!((part(Some("bytes=0-"), 0), part(Some("bytes=-1"), 0)), (Part::None, Part::None));
    }
}
