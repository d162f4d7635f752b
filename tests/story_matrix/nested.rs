//! The fields of what is answered: every object of schema.graphql with all of its fields, who may come by
//! it, and which of its fields are for admins alone. A field or a type that nobody wrote down here fails,
//! and so does a way to an object that is not for those who may go it.

use super::classes::Class;

/// Whose affair an object is: those who are answered one at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nobody's: it says nothing by itself.
    Plain,
    /// Everybody's with an account, of himself.
    AnyAccount,
    /// Everybody's whose token reads: things of the host, and what lists tell of VMs that he sees.
    Reader,
    /// Of those who see the VM, or work with it.
    Vm,
    /// Of the VM's owner.
    Owner,
    /// One's own, with a token that is good for everything.
    Account,
    Admins,
}

use Whose::*;

impl Whose {
    /// Whether the answer to a request of this class may hold it.
    pub fn is_for(self, class: Class) -> bool {
        let of_a_vm = || !matches!(class, Class::AnyAccount | Class::OwnAccount);
        match self {
            Plain => true,
            AnyAccount => matches!(class, Class::AnyAccount | Class::OwnAccount),
            Reader => matches!(class, Class::Reads | Class::Admins | Class::AdminsWithAll),
            Vm => of_a_vm(),
            Owner => class == Class::Owns,
            Account => class == Class::OwnAccount,
            Admins => matches!(class, Class::Admins | Class::AdminsWithAll),
        }
    }
}

/// A type.
#[derive(Debug)]
pub struct Told {
    pub name: &'static str,
    pub whose: Whose,
    /// What everybody is told who is answered the object.
    everybody: &'static str,
    /// What is null for all but admins.
    admins: &'static str,
}

impl Told {
    const fn and_admins(self, fields: &'static str) -> Self {
        Self { admins: fields, ..self }
    }

    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.everybody.split_whitespace().chain(self.for_admins())
    }

    pub fn for_admins(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.admins.split_whitespace()
    }
}

const fn told(name: &'static str, whose: Whose, everybody: &'static str) -> Told {
    Told { name, whose, everybody, admins: "" }
}

pub const TYPES: [Told; 68] = [
    told(
        "Agent",
        Vm,
        "actions capabilities clockSkewMs connectivity counters lastSeenAt platform reportedState \
         seal version",
    ),
    told(
        "AgentCounters",
        Vm,
        "badSeal bytes dropped errorsMuted frames late malformed oversized refusedRange refusedShape \
         refusedSkew replayed sealed stale tooLarge unknownType unsealed unsolicited wrongShape",
    ),
    told(
        "Alert",
        Reader,
        "count delivery details firstAt id kind lastAt resolvedAt severity summary vmId vmName",
    ),
    told("AlertConnection", Reader, "nodes pageInfo"),
    told("AlertDelivery", Reader, "attempts deliveredAt nextAttemptAt notified state")
        .and_admins("lastError"),
    told("ApiToken", Account, "createdAt expiresAt id label scopes"),
    told("AuditConnection", Admins, "nodes pageInfo"),
    told("AuditEntry", Admins, "action address at code details id outcome requestId userId vmId"),
    told(
        "CommandLog",
        Vm,
        "command commandId createdAt executionMs id lateAt lateResponse queueMs requestedBy response \
         result runMs sentAt status success type vmId",
    ),
    told("CommandLogConnection", Vm, "nodes pageInfo"),
    told("Condition", Vm, "message reason since status type"),
    told("DiskSpace", Vm, "criticalThreshold disks status warningThreshold"),
    told("DomainInterface", Admins, "mac network"),
    told("EndedProcess", Vm, "pid signal"),
    told("FoundPackage", Vm, "description name"),
    told("FoundPackages", Vm, "packages truncated"),
    told("GuestDiskUsage", Vm, "availableGb filesystem mountPoint status totalGb usagePercent usedGb"),
    told(
        "GuestProcess",
        Vm,
        "commandLine cpuUsagePercent executablePath memoryUsageKb name parentPid pid startTime status",
    ),
    told("HealthCheck", Vm, "message name status value"),
    told("HealthReport", Vm, "checks status"),
    told(
        "Host",
        Reader,
        "arch cpus defaultNetwork defaultPool domainType firmware freeMemoryBytes hostname \
         hypervisorVersion id libvirtVersion limits memoryBytes networks pools tpm uri userNetwork",
    ),
    told("Image", Reader, "description name osFamily problem provisioning sha256 usable virtualBytes"),
    told("ImageConnection", Reader, "nodes pageInfo"),
    told("InstalledPackage", Vm, "architecture name version"),
    told("InstalledPackages", Vm, "packages truncated"),
    told("IssuedToken", Account, "info token"),
    told("LoadAverage", Vm, "fifteenMinutes fiveMinutes oneMinute"),
    told(
        "Medium",
        Reader,
        "bytesDone bytesTotal createdAt error expectedSha256 facts fileName finishedAt id kind name \
         progress requestedById sha256 startedAt state",
    )
    .and_admins("source useCount"),
    told("MediumConnection", Reader, "nodes pageInfo"),
    told("MediumError", Reader, "code message"),
    told("MediumFacts", Reader, "arch bootFiles bootable distribution label osFamily variant version"),
    told("MemoryInfo", Vm, "availableKb swapTotalKb swapUsedKb totalKb usedKb"),
    told("MetricsLine", Vm, "avg field max min unit"),
    told("MetricsSeries", Vm, "at counts fields from resolution to truncated"),
    told("Network", Reader, "active name"),
    told("Operation", Vm, "createdAt effect error finishedAt id kind progress requestedBy stage status vmId"),
    told("OperationError", Vm, "code message"),
    told("OsInfo", Vm, "architecture id kernelVersion name prettyName version"),
    told("PageInfo", Plain, "endCursor hasNextPage"),
    told("Processes", Vm, "processes total truncated"),
    told("Service", Vm, "activeState description enabled loadState name subState"),
    told("ServiceState", Vm, "activeState description enabled loadState operation service subState"),
    told("Services", Vm, "services truncated"),
    told("StoragePool", Reader, "active availableBytes capacityBytes name"),
    told("SystemInfo", Vm, "cpuModel hostname loadAverage logicalCores memory uptimeSeconds"),
    told(
        "UnmanagedDomain",
        Admins,
        "hasAgentChannel hasOurMetadata interfaces memoryMib name persistent state uuid vcpus",
    ),
    told("UnmanagedDomainConnection", Admins, "nodes pageInfo"),
    told("User", AnyAccount, "admin id name permissions role"),
    told("UserAccount", Admins, "createdAt disabled email hasPassword id name permissions role"),
    told("UserConnection", Admins, "nodes pageInfo"),
    told(
        "Vm",
        Vm,
        "adopted agent autostart clonedFrom conditions createdAt diskBytes disks firmware id image \
         installReportedAt installStage installedAt interfaces ipAddresses latestMetrics macAddresses \
         media medium memoryMib name network ownerId phase policy pool power tpm vcpus",
    ),
    told("VmCommandError", Vm, "code message"),
    told("VmCommandResult", Vm, "command error vmId"),
    told("VmConnection", Vm, "nodes pageInfo"),
    told("VmConsoleLog", Vm, "text truncated"),
    told("VmConsolePiece", Vm, "anew skipped text"),
    told("VmDisk", Vm, "bytes pool target"),
    told("VmError", Vm, "createdAt details error id timestamp vmId"),
    told("VmErrorConnection", Vm, "nodes pageInfo"),
    told("VmEvent", Vm, "at payload type vmId"),
    told("VmInterface", Vm, "bridge mac network"),
    told("VmLimits", Reader, "maxDiskBytes maxMemoryMib maxVcpus minMemoryMib"),
    told("VmMedium", Vm, "medium pool target volume"),
    told(
        "VmMetrics",
        Vm,
        "cpuUsage createdAt diskRead diskUsage diskWritten id memoryTotal memoryUsed networkReceived \
         networkSent networkStats ports processes raw timestamp vmId",
    ),
    told("VmPayload", Vm, "operation vm"),
    told("VmPolicy", Vm, "onCrash onPowerOff"),
    told("VmShare", Owner, "createdAt share userId userName"),
    told("VmSnapshot", Vm, "createdAt current description name parent quiesced quiescedReason state"),
];

/// A question whose answer holds fields for admins, of things that are there; and where those are in it.
pub struct Question {
    pub query: &'static str,
    /// Of the root field. Others are answered as the table of rows says.
    pub class: Class,
    /// The first object, as a pointer into the data.
    pub object: &'static str,
    /// Types with their fields, as pointers into the object.
    pub restricted: &'static [(&'static str, &'static str, &'static str)],
}

/// The name of the disc that these ask about.
pub const DISC: &str = "disc-1";

pub const QUESTIONS: [Question; 3] = [
    Question {
        query: "{ media { nodes { name source useCount } } }",
        class: Class::Reads,
        object: "/media/nodes/0",
        restricted: &[("Medium", "source", "/source"), ("Medium", "useCount", "/useCount")],
    },
    Question {
        query: "{ medium(name: \"disc-1\") { name source useCount } }",
        class: Class::Reads,
        object: "/medium",
        restricted: &[("Medium", "source", "/source"), ("Medium", "useCount", "/useCount")],
    },
    Question {
        query: "{ alerts { nodes { summary delivery { lastError } } } }",
        class: Class::Reads,
        object: "/alerts/nodes/0",
        restricted: &[("AlertDelivery", "lastError", "/delivery/lastError")],
    },
];
