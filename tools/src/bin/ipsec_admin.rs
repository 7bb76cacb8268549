//! `ipsec_admin`: see [`tools::commands::ipsec_admin`].

fn main() -> std::process::ExitCode {
    tools::commands::ipsec_admin::run(std::env::args_os().skip(1).collect())
}
