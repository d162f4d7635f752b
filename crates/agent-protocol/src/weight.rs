//! What a line would take in memory once it is read.
//!
//! A bound on text alone bounds nothing: `{"a":0},` is eight bytes, and a map of its own in
//! memory. So the tree is reckoned from the bytes, before any of it is built.

/// What a key or a value takes, its share of growing containers included.
const NODE_BYTES: usize = 96;
/// Nodes that a map's first leaf is worth, and a list's first allocation.
const OBJECT_NODES: usize = 8;
const ARRAY_NODES: usize = 2;

/// Bytes that this JSON text takes as a [`serde_json::Value`], at most about; the text itself is
/// counted once. One pass, without allocating. Exact about what is inside a string as long as the
/// text is valid, which is as far as a reader gets.
#[must_use]
pub fn tree_bytes(text: &[u8]) -> usize {
    let (mut nodes, mut in_string, mut escaped) = (1_usize, false, false);
    for &byte in text {
        if in_string {
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                in_string = false;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b',' | b':' => nodes += 1,
            b'{' => nodes += OBJECT_NODES,
            b'[' => nodes += ARRAY_NODES,
            _ => {}
        }
    }
    nodes.saturating_mul(NODE_BYTES).saturating_add(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_strings_is_counted() {
        for (text, nodes) in [
            ("", 1),
            ("7", 1),
            ("[]", 3),
            ("[1,2,3]", 5),
            ("{}", 9),
            (r#"{"a":0}"#, 10),
            (r#"{"a":0,"b":[1]}"#, 14),
            (r#""{[,:""#, 1),
            (r#""{\"[,:""#, 1),
            (r#"["\\",1]"#, 4),
            (r#"["\\\",",1]"#, 4),
            (r#"["\u0022,",1]"#, 4),
            (r#"{"{":"}","\"":","}"#, 12),
            (r#""never ended,,,"#, 1),
            // No JSON, and no escape where there is no string.
            (r#"\",,,"#, 1),
            ("\\,,", 3),
        ] {
            assert_eq!(tree_bytes(text.as_bytes()), nodes * NODE_BYTES + text.len(), "{text}");
        }
    }

    #[test]
    fn tiny_objects_weigh_what_they_take() {
        let text = format!("[{}0]", r#"{"a":0},"#.repeat(10_000));
        // A map's leaf has room for eleven keys and values.
        let leaf = 11 * (size_of::<String>() + size_of::<serde_json::Value>());
        assert!(tree_bytes(text.as_bytes()) > 10_000 * leaf);
    }
}
