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

/// Whether [`tree_bytes`] is within the bound. Nearly all texts are so small that it does not
/// matter what is inside of strings, which is told many times faster.
#[must_use]
pub fn tree_fits(text: &[u8], bound: usize) -> bool {
    tree_bytes_at_most(text) <= bound || tree_bytes(text) <= bound
}

/// [`tree_bytes`] as if nothing stood in strings.
fn tree_bytes_at_most(text: &[u8]) -> usize {
    /// What one byte can count without overflowing.
    const PART: usize = 255;
    let mut nodes = 1_usize;
    // No branches, and sums of bytes: compiled to wide instructions.
    for part in text.chunks(PART) {
        let (mut single, mut objects, mut arrays) = (0_u8, 0_u8, 0_u8);
        for &byte in part {
            single += u8::from(byte == b',') + u8::from(byte == b':');
            objects += u8::from(byte == b'{');
            arrays += u8::from(byte == b'[');
        }
        nodes +=
            usize::from(single) + OBJECT_NODES * usize::from(objects) + ARRAY_NODES * usize::from(arrays);
    }
    nodes.saturating_mul(NODE_BYTES).saturating_add(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_quick_look_never_lets_too_much_pass(text in "[\\[{:,\"\\\\a]{0,600}", bound in 0usize..100_000) {
            let (exact, at_most) = (tree_bytes(text.as_bytes()), tree_bytes_at_most(text.as_bytes()));
            prop_assert!(exact <= at_most);
            prop_assert_eq!(tree_fits(text.as_bytes(), bound), exact <= bound);
        }
    }
}
