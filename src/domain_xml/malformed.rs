//! Why a text is refused.

/// Why a text is not a document we work on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at byte {offset})")]
pub struct Malformed {
    /// What is wrong.
    pub reason: String,
    /// Where, counted from the start of the text.
    pub offset: usize,
}

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>, offset: usize) -> Self {
        Self { reason: reason.into(), offset }
    }
}
