//! The executable. Everything is in the library; see `infinibay::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    infinibay::cli::main()
}
