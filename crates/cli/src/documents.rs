//! Everything that this program ever asks of the API, each as a file of its own in `graphql/`, so
//! that a test can hold it against the schema.

/// One GraphQL document.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// The file's name, without its ending.
    pub name: &'static str,
    /// The field that it asks for, at the top.
    pub field: &'static str,
    /// What is sent.
    pub text: &'static str,
}

macro_rules! documents {
    ($($constant:ident = $name:literal, $field:literal;)*) => {
        $(
            #[doc = concat!("`graphql/", $name, ".graphql`.")]
            pub const $constant: Document =
                Document { name: $name, field: $field, text: include_str!(concat!("../graphql/", $name, ".graphql")) };
        )*
        /// All of them.
        pub const ALL: &[Document] = &[$($constant),*];
    };
}

documents! {
    ALERTS = "alerts", "alerts";
    AUDIT_LOG = "audit_log", "auditLog";
    CANCEL_VM_COMMAND = "cancel_vm_command", "cancelVmCommand";
    COMMAND_LOG = "command_log", "commandLog";
    CREATE_API_TOKEN = "create_api_token", "createApiToken";
    CREATE_VM = "create_vm", "createVm";
    CREATE_VM_SNAPSHOT = "create_vm_snapshot", "createVmSnapshot";
    DELETE_VM = "delete_vm", "deleteVm";
    DELETE_VM_SNAPSHOT = "delete_vm_snapshot", "deleteVmSnapshot";
    EXECUTE_VM_COMMAND = "execute_vm_command", "executeVmCommand";
    ME = "me", "me";
    OPERATION = "operation", "operation";
    REBOOT_VM = "reboot_vm", "rebootVm";
    REVERT_VM_SNAPSHOT = "revert_vm_snapshot", "revertVmSnapshot";
    START_VM = "start_vm", "startVm";
    STOP_VM = "stop_vm", "stopVm";
    VM = "vm", "vm";
    VM_CONSOLE = "vm_console", "vmConsole";
    VM_CONSOLE_LOG = "vm_console_log", "vmConsoleLog";
    VM_ERRORS = "vm_errors", "vmErrors";
    VM_EVENTS = "vm_events", "vmEvents";
    VM_METRICS_SERIES = "vm_metrics_series", "vmMetricsSeries";
    VM_NAMES = "vm_names", "vms";
    VM_SNAPSHOTS = "vm_snapshots", "vmSnapshots";
    VMS = "vms", "vms";
}
