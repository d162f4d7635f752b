//! Structured logs: human on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::{filter::ParseError, fmt, prelude::*};

use crate::config::{LogConfig, LogFormat};

/// Installs the process's subscriber, on standard error.
///
/// # Errors
/// The filter is not one; a configuration that was loaded has none such.
pub fn init(config: &LogConfig) -> Result<(), ParseError> {
    let filter = config.env_filter()?;
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let installed = if json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()
    };
    if let Err(error) = installed {
        eprintln!("infinibayd: logging is set up already: {error}");
    }
    Ok(())
}
