# Run at the first logon: the agent, the account's keys, and what the first boot was told to run.
# Never fails: an agent that is missing is told by its silence.
$ErrorActionPreference = 'Continue'
$log = Join-Path $env:SystemRoot 'Temp\infinibay-install.log'
Start-Transcript -Append -Path $log | Out-Null
$root = Split-Path -Parent $PSScriptRoot
$powershell = Join-Path $PSHOME 'powershell.exe'

function Invoke-File([string]$File, [string[]]$More) {
    try {
        & $powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File $File @More
        Write-Output "$File ended with code $LASTEXITCODE"
    } catch {
        Write-Output "$File could not be run: $_"
    }
}

Invoke-File (Join-Path $PSScriptRoot 'report.ps1') @('installed')

$agent = Join-Path $root 'infiniservice\install-windows.ps1'
if (Test-Path -LiteralPath $agent) { Invoke-File $agent @() }

$keys = Join-Path $PSScriptRoot 'authorized_keys'
if (Test-Path -LiteralPath $keys) {
    try {
        if (-not (Get-Service -Name sshd -ErrorAction SilentlyContinue)) {
            Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' | Out-Null
        }
        # Members of Administrators have their keys there, and sshd refuses a file that others may write.
        $place = Join-Path $env:ProgramData 'ssh\administrators_authorized_keys'
        New-Item -ItemType Directory -Force -Path (Split-Path -Parent $place) | Out-Null
        Copy-Item -LiteralPath $keys -Destination $place -Force
        Set-ItemProperty -LiteralPath $place -Name IsReadOnly -Value $false
        & icacls.exe $place /inheritance:r /grant '*S-1-5-32-544:F' /grant '*S-1-5-18:F' | Out-Null
        Set-Service -Name sshd -StartupType Automatic
        Start-Service -Name sshd
    } catch {
        Write-Output "the keys could not be put in place: $_"
    }
}

$scripts = Join-Path $root 'first-boot'
if (Test-Path -LiteralPath $scripts) {
    Get-ChildItem -LiteralPath $scripts -Filter '*.ps1' | Sort-Object Name | ForEach-Object {
        Invoke-File $_.FullName @()
    }
}

Invoke-File (Join-Path $PSScriptRoot 'report.ps1') @('finished')
Stop-Transcript | Out-Null
exit 0
