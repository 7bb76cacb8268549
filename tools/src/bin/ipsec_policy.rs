//! `ipsec_policy`: see [`tools::commands::ipsec_policy`].

fn main() -> std::process::ExitCode {
    tools::commands::ipsec_policy::run(std::env::args_os().skip(1).collect())
}
