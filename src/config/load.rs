//! From file and environment to a checked [`Config`].

use std::{collections::BTreeMap, ffi::OsString, fmt, os::unix::ffi::OsStrExt, path::PathBuf};

use secrecy::ExposeSecret;

use super::{
    AccountsConfig, AgentsConfig, AlertsConfig, ApiConfig, CommandsConfig, DatabaseConfig, GuestsConfig,
    HttpConfig, HypervisorConfig, InstallsConfig, KeyDoc, LogConfig, MediaConfig, MetricsConfig, PathsConfig,
    ReconcileConfig, RedactionConfig, TlsConfig, rules,
};

/// The whole configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// See [`PathsConfig`].
    pub paths: PathsConfig,
    /// See [`DatabaseConfig`].
    pub database: DatabaseConfig,
    /// See [`ApiConfig`].
    pub api: ApiConfig,
    /// See [`HttpConfig`].
    pub http: HttpConfig,
    /// See [`TlsConfig`].
    pub tls: TlsConfig,
    /// See [`GuestsConfig`].
    pub guests: GuestsConfig,
    /// See [`HypervisorConfig`].
    pub hypervisor: HypervisorConfig,
    /// See [`AgentsConfig`].
    pub agents: AgentsConfig,
    /// See [`MetricsConfig`].
    pub metrics: MetricsConfig,
    /// See [`CommandsConfig`].
    pub commands: CommandsConfig,
    /// See [`AlertsConfig`].
    pub alerts: AlertsConfig,
    /// See [`RedactionConfig`].
    pub redaction: RedactionConfig,
    /// See [`AccountsConfig`].
    pub accounts: AccountsConfig,
    /// See [`MediaConfig`].
    pub media: MediaConfig,
    /// See [`ReconcileConfig`].
    pub reconcile: ReconcileConfig,
    /// See [`InstallsConfig`].
    pub installs: InstallsConfig,
    /// See [`LogConfig`].
    pub log: LogConfig,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `section.key`, the file's path, or an environment variable's name.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Every mistake that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} mistake(s):", self.0.len())?;
        for ConfigError { key, reason } in &self.0 {
            write!(f, "\n  {key}: {reason}")?;
        }
        Ok(())
    }
}

/// Where values come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named on the command line; it must exist. Otherwise `/etc/infinibay/infinibay.toml`
    /// is read where it exists.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Names of variables that are meant for us and cannot be read, because name or value is not
    /// UTF-8. Each is a mistake.
    pub unreadable: Vec<String>,
}

/// Read when no file is named.
const DEFAULT_FILE: &str = "/etc/infinibay/infinibay.toml";

/// What the names of variables begin with.
const ENV_PREFIX: &str = "INFINIBAY__";

/// The names of their own, and the keys they stand for.
const SPECIAL_ENV: [(&str, &str, &str); 4] = [
    ("DATABASE_URL", "database", "url"),
    ("APP_HOST", "api", "host"),
    ("PORT", "api", "port"),
    ("INFINIBAY_BASE_DIR", "paths", "base_dir"),
];

type Raw = BTreeMap<String, BTreeMap<String, String>>;

impl Sources {
    /// The process's environment, and the file named.
    #[must_use]
    pub fn from_process(file: Option<PathBuf>) -> Self {
        Self::from_vars(file, std::env::vars_os())
    }

    fn from_vars(file: Option<PathBuf>, vars: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut sources = Self { file, ..Self::default() };
        for (name, value) in vars {
            let ours = name.as_bytes().starts_with(ENV_PREFIX.as_bytes())
                || SPECIAL_ENV.iter().any(|(special, ..)| name == *special);
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    sources.env.insert(name, value);
                }
                (Ok(name), Err(_)) if ours => sources.unreadable.push(name),
                (Err(name), _) if ours => sources.unreadable.push(name.to_string_lossy().into_owned()),
                _ => {}
            }
        }
        sources
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every mistake, each with its key.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut raw = read_file(sources, &mut errors);
        read_env(sources, &mut raw, &mut errors);
        let mut take = |section: &str| raw.remove(section).unwrap_or_default();
        let config = Self {
            paths: PathsConfig::read(&take(PathsConfig::SECTION), &mut errors),
            database: DatabaseConfig::read(&take(DatabaseConfig::SECTION), &mut errors),
            api: ApiConfig::read(&take(ApiConfig::SECTION), &mut errors),
            http: HttpConfig::read(&take(HttpConfig::SECTION), &mut errors),
            tls: TlsConfig::read(&take(TlsConfig::SECTION), &mut errors),
            guests: GuestsConfig::read(&take(GuestsConfig::SECTION), &mut errors),
            hypervisor: HypervisorConfig::read(&take(HypervisorConfig::SECTION), &mut errors),
            agents: AgentsConfig::read(&take(AgentsConfig::SECTION), &mut errors),
            metrics: MetricsConfig::read(&take(MetricsConfig::SECTION), &mut errors),
            commands: CommandsConfig::read(&take(CommandsConfig::SECTION), &mut errors),
            alerts: AlertsConfig::read(&take(AlertsConfig::SECTION), &mut errors),
            redaction: RedactionConfig::read(&take(RedactionConfig::SECTION), &mut errors),
            accounts: AccountsConfig::read(&take(AccountsConfig::SECTION), &mut errors),
            media: MediaConfig::read(&take(MediaConfig::SECTION), &mut errors),
            reconcile: ReconcileConfig::read(&take(ReconcileConfig::SECTION), &mut errors),
            installs: InstallsConfig::read(&take(InstallsConfig::SECTION), &mut errors),
            log: LogConfig::read(&take(LogConfig::SECTION), &mut errors),
        };
        for section in raw.into_keys() {
            errors.push(ConfigError { key: section, reason: "is not a section".to_owned() });
        }
        config.check_together(&mut errors);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// Where installation discs are kept.
    #[must_use]
    pub fn media_dir(&self) -> PathBuf {
        self.media.dir.clone().unwrap_or_else(|| self.paths.state_dir.join("media"))
    }

    /// Every key, with its default and meaning.
    #[must_use]
    pub fn keys() -> Vec<KeyDoc> {
        [
            PathsConfig::keys(),
            DatabaseConfig::keys(),
            ApiConfig::keys(),
            HttpConfig::keys(),
            TlsConfig::keys(),
            GuestsConfig::keys(),
            HypervisorConfig::keys(),
            AgentsConfig::keys(),
            AccountsConfig::keys(),
            MetricsConfig::keys(),
            CommandsConfig::keys(),
            AlertsConfig::keys(),
            RedactionConfig::keys(),
            MediaConfig::keys(),
            ReconcileConfig::keys(),
            InstallsConfig::keys(),
            LogConfig::keys(),
        ]
        .concat()
    }

    /// Rules that concern more than one key, or need more than a range.
    fn check_together(&self, errors: &mut Vec<ConfigError>) {
        let mut mistake = |key: &str, reason: &str| {
            errors.push(ConfigError { key: key.to_owned(), reason: reason.to_owned() });
        };
        if self.api.host.parse::<std::net::IpAddr>().is_err() {
            mistake("api.host", "is not an IP address");
        }
        if let Some((key, reason)) = self.tls.mistake() {
            mistake(key, reason);
        }
        if self.agents.reconnect_base > self.agents.reconnect_max {
            mistake("agents.reconnect_base", "is longer than agents.reconnect_max");
        }
        if self.reconcile.retry_base > self.reconcile.retry_max {
            mistake("reconcile.retry_base", "is longer than reconcile.retry_max");
        }
        if self.metrics.flush_rows > self.metrics.buffer_rows {
            mistake("metrics.flush_rows", "is more than metrics.buffer_rows");
        }
        if let Some(url) = &self.database.url
            && let Err(reason) = rules::database_url(url.expose_secret())
        {
            mistake("database.url", reason);
        }
        if let Some(address) = self.guests.listen
            && let Err(reason) = rules::guests_listen(address)
        {
            mistake("guests.listen", reason);
        }
        if let Err(reason) = rules::hypervisor_uri(&self.hypervisor.uri) {
            mistake("hypervisor.uri", reason);
        }
        if self.hypervisor.default_pool.parse::<crate::vm::ResourceName>().is_err() {
            mistake("hypervisor.default_pool", "is not a valid name");
        }
        if self.hypervisor.default_network.parse::<crate::vm::ResourceName>().is_err() {
            mistake("hypervisor.default_network", "is not a valid name");
        }
        if let Err(wrong) = self.alerts.webhook() {
            mistake(&format!("alerts.{}", wrong.key), wrong.reason);
        }
        for (key, error) in self.redaction.mistakes() {
            mistake(key, &error.to_string());
        }
        if let Err(error) = self.log.env_filter() {
            mistake("log.filter", &error.to_string());
        }
    }
}

fn read_file(sources: &Sources, errors: &mut Vec<ConfigError>) -> Raw {
    let (path, required) = match &sources.file {
        Some(path) => (path.clone(), true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    };
    let file = config::File::from(path.as_path()).format(config::FileFormat::Toml).required(required);
    let tree = config::Config::builder()
        .add_source(file)
        .build()
        .and_then(config::Config::try_deserialize::<BTreeMap<String, config::Value>>);
    let tree = match tree {
        Ok(tree) => tree,
        Err(error) => {
            errors.push(ConfigError { key: path.display().to_string(), reason: error.to_string() });
            return Raw::new();
        }
    };
    let mut raw = Raw::new();
    for (section, value) in tree {
        let Ok(table) = value.into_table() else {
            errors.push(ConfigError { key: section, reason: "is not a section".to_owned() });
            continue;
        };
        for (key, value) in table {
            match value.into_string() {
                Ok(text) => {
                    raw.entry(section.clone()).or_default().insert(key, text);
                }
                Err(_) => errors.push(ConfigError {
                    key: format!("{section}.{key}"),
                    reason: "is not a single value".to_owned(),
                }),
            }
        }
    }
    raw
}

fn read_env(sources: &Sources, raw: &mut Raw, errors: &mut Vec<ConfigError>) {
    for name in &sources.unreadable {
        errors.push(ConfigError { key: name.clone(), reason: "is not UTF-8".to_owned() });
    }
    for (name, section, key) in SPECIAL_ENV {
        if let Some(value) = sources.env.get(name) {
            raw.entry(section.to_owned()).or_default().insert(key.to_owned(), value.clone());
        }
    }
    for (name, value) in &sources.env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        match rest.to_ascii_lowercase().split_once("__") {
            Some((section, key)) => {
                raw.entry(section.to_owned()).or_default().insert(key.to_owned(), value.clone());
            }
            None => errors.push(ConfigError {
                key: name.clone(),
                reason: "is not of the form INFINIBAY__SECTION__KEY".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("infinibay.toml");
        std::fs::write(&path, file).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load(&Sources { file: Some(path), env, ..Sources::default() })
    }

    #[test]
    fn what_would_fail_only_in_use_is_a_mistake_too() {
        let errors = load(
            "[log]\nfilter = 'x=y=z'\n[guests]\nlisten = '0.0.0.0:4001'\n",
            &[
                ("INFINIBAY__HYPERVISOR__URI", "nonsense"),
                ("DATABASE_URL", "postgres://"),
                ("INFINIBAY__ALERTS__WEBHOOK_URL", "https://alerts.example/hunter2"),
            ],
        )
        .unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|e| e.key.as_str()).collect();
        let expected =
            ["database.url", "guests.listen", "hypervisor.uri", "alerts.webhook_secret", "log.filter"];
        assert_eq!(keys, expected);
        assert!(!errors.to_string().contains("hunter2"), "a secret shows in the errors");
    }

    #[test]
    fn variables_of_ours_that_are_not_utf8_are_mistakes() {
        use std::os::unix::ffi::OsStringExt;
        let vars = [
            (&b"INFINIBAY__API__PORT"[..], &b"\xff"[..]),
            (b"INFINIBAY__API__H\xffST", b"x"),
            (b"DATABASE_URL", b"sqlite:/\xff"),
            (b"OF_ANOTHER", b"\xff"),
            (b"\xff", b"x"),
            (b"PORT", b"4001"),
        ]
        .map(|(name, value)| (OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())));
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let sources = Sources::from_vars(Some(file.path().to_owned()), vars.into_iter());
        assert_eq!(sources.env.get("PORT").map(String::as_str), Some("4001"));
        let errors = Config::load(&sources).unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["INFINIBAY__API__PORT", "INFINIBAY__API__H\u{fffd}ST", "DATABASE_URL"]);
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let errors = load(
            "[api]\nport = 99999\nhost = 'nowhere'\ncolour = 'blue'\n[agents]\noffline_after = 'soon'\n[attic]\nx = 1\n\
             [redaction]\nnames = 'a b'\nflags = '-p'\npatterns = '''\n(\n'''\n",
            &[("INFINIBAY__PATHS__STATE_DIR", "relative")],
        )
        .unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|e| e.key.as_str()).collect();
        for key in [
            "api.port",
            "api.host",
            "api.colour",
            "agents.offline_after",
            "attic",
            "paths.state_dir",
            "redaction.names",
            "redaction.flags",
            "redaction.patterns",
        ] {
            assert!(keys.contains(&key), "{key} was not reported in {keys:?}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load(
            "[api]\nport = 1\n[reconcile]\nstop_grace = '2m'\n",
            &[("PORT", "2"), ("INFINIBAY__API__PORT", "3"), ("DATABASE_URL", "postgres://u:hunter2@h/d")],
        )
        .unwrap();
        assert_eq!(config.api.port, 3);
        assert_eq!(config.reconcile.stop_grace.as_secs(), 120);
        assert!(!format!("{config:?}").contains("hunter2"), "a secret shows in Debug");
    }

    #[test]
    fn without_a_word_nothing_is_opened() {
        let host: std::net::IpAddr = Config::default().api.host.parse().unwrap();
        assert!(host.is_loopback(), "{host}");
        for (name, closed) in [
            ("guests.listen", ""),
            ("hypervisor.allow_user_network", "false"),
            ("http.allowed_origins", ""),
            ("http.trusted_proxies", ""),
            ("media.import_dirs", ""),
            ("media.allow_addresses", ""),
            ("alerts.webhook_url", ""),
        ] {
            let keys = Config::keys();
            let key = keys.iter().find(|key| key.key == name).expect(name);
            assert_eq!(key.default, closed, "{name}");
        }
    }

    #[test]
    fn the_defaults_keep_their_own_rules() {
        Config::default();
        assert!(Config::keys().iter().all(|key| !key.doc.is_empty()));
    }
}
