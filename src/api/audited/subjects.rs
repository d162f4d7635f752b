//! Which argument of a root field names the VM it is about. One list and no rule: `id` is a user's or a
//! token's as well, and a row that calls that a VM misleads whoever reads it.

/// By field; what is not here is about no VM, or about many.
const VMS: [(&str, &str); 41] = [
    ("adoptDomain", "uuid"),
    ("attachVmDisk", "id"),
    ("attachVmInterface", "id"),
    ("cancelVmCommand", "vmId"),
    ("cloneVm", "id"),
    ("commandLog", "vmId"),
    ("createVmSnapshot", "id"),
    ("deleteVm", "id"),
    ("deleteVmSnapshot", "id"),
    ("detachVmDisk", "id"),
    ("detachVmInterface", "id"),
    ("ejectVmMedium", "id"),
    ("executeVmCommand", "vmId"),
    ("getVmMetrics", "vmId"),
    ("growVmDisk", "id"),
    ("insertVmMedium", "id"),
    ("rebootVm", "id"),
    ("releaseDomain", "id"),
    ("renameVm", "id"),
    ("resetVm", "id"),
    ("resizeVm", "id"),
    ("resumeVm", "id"),
    ("resync", "id"),
    ("revertVmSnapshot", "id"),
    ("saveVm", "id"),
    ("setVmAutostart", "id"),
    ("setVmPolicy", "id"),
    ("shareVm", "vmId"),
    ("startVm", "id"),
    ("stopVm", "id"),
    ("suspendVm", "id"),
    ("unshareVm", "vmId"),
    ("vm", "id"),
    ("vmConsole", "vmId"),
    ("vmConsoleLog", "id"),
    ("vmErrors", "vmId"),
    ("vmEvents", "vmId"),
    ("vmMetrics", "vmId"),
    ("vmMetricsSeries", "vmId"),
    ("vmShares", "vmId"),
    ("vmSnapshots", "vmId"),
];

/// The argument of this root field that names its VM.
pub(super) fn vm_argument(field: &str) -> Option<&'static str> {
    VMS.iter().find(|(name, _)| *name == field).map(|(_, argument)| *argument)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_graphql::parser::{
        parse_schema,
        types::{BaseType, Type, TypeKind, TypeSystemDefinition},
    };

    use super::*;

    /// Ids of something else, or of more than one VM: of those, each refusal has a row of its own.
    const OTHERS: [(&str, &str); 10] = [
        ("adoptDomain", "ownerId"),
        ("cancelVmCommand", "commandId"),
        ("deleteUser", "id"),
        ("executeVmCommand", "commandId"),
        ("executeVmCommands", "vmIds"),
        ("operation", "id"),
        ("operationProgress", "id"),
        ("revokeApiToken", "id"),
        ("shareVm", "userId"),
        ("unshareVm", "userId"),
    ];
    const MORE: [(&str, &str); 2] = [("updateUser", "id"), ("user", "id")];

    fn named(ty: &Type) -> &str {
        match &ty.base {
            BaseType::Named(name) => name,
            BaseType::List(of) => named(of),
        }
    }

    #[test]
    fn every_id_of_every_root_field_is_known_for_what_it_is() {
        let sdl = crate::api::sdl();
        let mut ids = BTreeSet::new();
        for definition in parse_schema(&sdl).unwrap().definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let TypeKind::Object(object) = definition.node.kind else { continue };
            if !matches!(definition.node.name.node.as_str(), "Query" | "Mutation" | "Subscription") {
                continue;
            }
            for field in object.fields {
                for argument in &field.node.arguments {
                    if named(&argument.node.ty.node) == "UUID" {
                        ids.insert((field.node.name.node.to_string(), argument.node.name.node.to_string()));
                    }
                }
            }
        }
        let listed: BTreeSet<_> = VMS
            .iter()
            .chain(&OTHERS)
            .chain(&MORE)
            .map(|(field, argument)| ((*field).to_owned(), (*argument).to_owned()))
            .collect();
        let unknown: Vec<_> = ids.difference(&listed).collect();
        assert!(unknown.is_empty(), "say in VMS or in OTHERS what these name: {unknown:?}");
        let gone: Vec<_> = listed.difference(&ids).collect();
        assert!(gone.is_empty(), "the schema has no such ids: {gone:?}");
        assert_eq!(listed.len(), VMS.len() + OTHERS.len() + MORE.len(), "something is listed twice");
    }
}
