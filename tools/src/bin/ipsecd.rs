//! The daemon.

fn main() -> std::process::ExitCode {
    tools::ipsecd::run(std::env::args_os().skip(1).collect())
}
