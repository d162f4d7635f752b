# Installs infiniservice, Infinibay's agent, as a Windows service. May be run again.
#
#   install-windows.ps1 [-VmId ID] [-Url URL] [-Sha256 HEX] [-Root DIR]
#
#   -VmId ID     the VM's id
#   -Url URL     where the controller serves downloads; without a binary beside this script
#                URL/windows/binary is fetched, and its checksum compared with the one it came with
#   -Sha256 HEX  the binary's checksum, known from elsewhere; it counts more than the one it came with
#   -Root DIR    where to; default: "Infiniservice" in the folder for programs
#
# Taken from beside this script if present: infiniservice.exe, infiniservice.env.
# For Windows PowerShell 5.1 and later. Ends with 0, 1 (failed) or 2 (wrong arguments).
[CmdletBinding()]
param(
    [string]$VmId = '',
    [string]$Url = $env:INFINISERVICE_URL,
    [string]$Sha256 = '',
    [string]$Root = ''
)
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
# A progress bar makes downloads many times slower.
$ProgressPreference = 'SilentlyContinue'

$Service = 'Infiniservice'
$MaxBytes = 67108864

function Write-Word([string]$Words) { Write-Output "infiniservice-install: $Words" }

function Stop-Wrong([string]$Words) {
    Write-Word $Words
    exit 2
}

if ($VmId -cnotmatch '^[A-Za-z0-9._-]*$') { Stop-Wrong "-VmId: only letters, digits, '.', '_' and '-'" }
if ($Url) {
    $Url = $Url.TrimEnd('/')
    if ($Url -cnotmatch '^https?://[A-Za-z0-9._~:/?@!+,=%\[\]-]+$') { Stop-Wrong '-Url: not a plain http:// or https:// address' }
}
if ($Sha256 -and $Sha256 -notmatch '^[0-9A-Fa-f]{64}$') { Stop-Wrong '-Sha256: not 64 hexadecimal digits' }

# Lines NAME=VALUE of a file, in their order; comments and empty lines are left out.
function Read-Settings([string]$Path) {
    $read = [ordered]@{}
    if (Test-Path -LiteralPath $Path -PathType Leaf) {
        foreach ($line in [IO.File]::ReadAllLines($Path)) {
            if ($line -cmatch '^([A-Za-z_][A-Za-z0-9_]*)=(.*)$') { $read[$Matches[1]] = $Matches[2] }
        }
    }
    $read
}

function Get-Checksum([string]$Path) {
    (Get-FileHash -LiteralPath $Path -Algorithm SHA256).Hash.ToLowerInvariant()
}

# Fetches the program; what it came with says what its checksum has to be.
function Get-Program([string]$From, [string]$To) {
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
    for ($attempt = 1; ; $attempt++) {
        try {
            $answer = Invoke-WebRequest -UseBasicParsing -Uri $From -OutFile $To -PassThru -TimeoutSec 300
            break
        } catch {
            if ($attempt -ge 3) { throw "fetching $From failed: $_" }
            Start-Sleep -Seconds 5
        }
    }
    # One text, or a list of one, by PowerShell's version.
    [string]$told = @($answer.Headers['X-Checksum-Sha256'])[0]
    $told
}

# Compares what is there with what it has to be.
function Assert-Program([string]$Path, [string]$Wanted) {
    if ((Get-Item -LiteralPath $Path).Length -gt $MaxBytes) { throw 'the program is too large' }
    if ($Wanted) {
        $is = Get-Checksum $Path
        if ($is -ne $Wanted.ToLowerInvariant()) { throw "the program's checksum is $is, and should be $Wanted" }
    }
    $stream = [IO.File]::OpenRead($Path)
    try {
        $first = New-Object byte[] 2
        $count = $stream.Read($first, 0, 2)
    } finally {
        $stream.Dispose()
    }
    if ($count -ne 2 -or $first[0] -ne 0x4D -or $first[1] -ne 0x5A) { throw 'what came is no program (an error page?)' }
}

# Waits until the service is as wanted; one that does not follow is told.
function Wait-Service([string]$Status) {
    (Get-Service -Name $Service).WaitForStatus($Status, [TimeSpan]::FromSeconds(60))
}

$temporary = ''
try {
    $me = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
    if (-not $me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) { throw 'run this as an administrator' }

    if (-not $Root) { $Root = Join-Path $env:ProgramFiles 'Infiniservice' }
    New-Item -ItemType Directory -Force -Path $Root | Out-Null
    $program = Join-Path $Root 'infiniservice.exe'
    $file = Join-Path $Root 'infiniservice.env'
    $beside = Join-Path $PSScriptRoot 'infiniservice.exe'
    $besideFile = Join-Path $PSScriptRoot 'infiniservice.env'

    # An id or an address given replaces the one in the file; the rest of the file stays.
    $settings = if (Test-Path -LiteralPath $besideFile) { Read-Settings $besideFile } else { Read-Settings $file }
    if ($VmId) { $settings['INFINIBAY_VM_ID'] = $VmId }
    if ($Url) { $settings['INFINISERVICE_URL'] = $Url }
    $lines = @($settings.Keys | ForEach-Object { '{0}={1}' -f $_, $settings[$_] })

    $temporary = Join-Path $Root ('new-' + [Guid]::NewGuid().ToString('N') + '.exe')
    $wanted = $Sha256
    if (Test-Path -LiteralPath $beside -PathType Leaf) {
        Copy-Item -LiteralPath $beside -Destination $temporary
    } else {
        $source = [string]$settings['INFINISERVICE_URL']
        if (-not $source) { throw 'no binary beside this script, and no -Url to fetch it from' }
        $told = Get-Program "$source/windows/binary" $temporary
        if (-not $wanted) { $wanted = $told }
        if ($wanted -notmatch '^[0-9A-Fa-f]{64}$') { throw 'the program came without a checksum; give -Sha256' }
    }
    Assert-Program $temporary $wanted

    $existing = Get-Service -Name $Service -ErrorAction SilentlyContinue
    $same = (Test-Path -LiteralPath $program -PathType Leaf) -and ((Get-Checksum $program) -eq (Get-Checksum $temporary))
    $before = if (Test-Path -LiteralPath $file -PathType Leaf) { @([IO.File]::ReadAllLines($file)) } else { @() }
    $changed = (-not $same) -or (($before -join "`n") -cne ($lines -join "`n"))

    # A program that runs cannot be replaced.
    if ($changed -and $existing -and $existing.Status -ne 'Stopped') {
        Stop-Service -Name $Service -Force
        Wait-Service 'Stopped'
    }
    if (-not $same) { Move-Item -LiteralPath $temporary -Destination $program -Force }
    [IO.File]::WriteAllLines($file, [string[]]$lines)
    # SYSTEM and Administrators, by their numbers: their names are translated.
    & icacls.exe $file /inheritance:r /grant:r '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls.exe ended with $LASTEXITCODE" }

    if (-not $existing) {
        New-Service -Name $Service -BinaryPathName ('"{0}"' -f $program) -DisplayName 'Infinibay agent' `
            -Description 'Reports to the Infinibay controller, and does what it asks.' -StartupType Automatic | Out-Null
    } else {
        Set-Service -Name $Service -StartupType Automatic
    }
    # A service sees the environment that stands here.
    Set-ItemProperty -LiteralPath "HKLM:\SYSTEM\CurrentControlSet\Services\$Service" -Name Environment `
        -Type MultiString -Value ([string[]]$lines)
    & sc.exe failure $Service reset= 86400 actions= restart/2000/restart/2000/restart/2000 | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "sc.exe ended with $LASTEXITCODE" }
    if ((Get-Service -Name $Service).Status -ne 'Running') {
        Start-Service -Name $Service
        Wait-Service 'Running'
    }
    Write-Word $(if ($changed) { 'installed' } else { 'was installed already' })
    exit 0
} catch {
    Write-Word "failed: $_"
    exit 1
} finally {
    if ($temporary -and (Test-Path -LiteralPath $temporary)) { Remove-Item -LiteralPath $temporary -Force -ErrorAction SilentlyContinue }
}
