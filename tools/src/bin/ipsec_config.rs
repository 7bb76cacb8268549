//! `ipsec_config`: see [`tools::commands::ipsec_config`].

fn main() -> std::process::ExitCode {
    tools::commands::ipsec_config::run(std::env::args_os().skip(1).collect())
}
