//! UUIDs, as libvirt reads them.

use uuid::Uuid;

use crate::vm::VmId;

/// Reads a UUID as generously as libvirt does: 32 hexadecimal digits, with dashes and white space
/// anywhere between them.
pub(crate) fn parse_uuid(text: &str) -> Option<VmId> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ' | '\t' | '\r' | '\n')).collect();
    (digits.len() == 32).then(|| Uuid::try_parse(&digits).ok().map(VmId)).flatten()
}
