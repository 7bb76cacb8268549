//! strongSwan's charon in a lab host: no systemd, nothing read from /etc.
//!
//! ESP is done by its plugin `kernel-libipsec`, in user space; that always goes
//! in UDP 4500, because it falsifies its NAT-D payload. For raw ESP (IP
//! protocol 50) see [`Esp::Shim`].

use crate::cases::{Case, PRESHARED};
use crate::lab::Host;
use crate::need::CHARON;
use crate::process::{self, Background, Finished};
use crate::wait;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

/// Plugins of charon but for the one that does ESP. The order is that of preference.
const PLUGINS: &str = "random nonce openssl aes sha1 sha2 md5 hmac kdf gcm ccm ctr gmp curve25519 drbg pem pkcs1 pkcs8 \
                       x509 pubkey revocation constraints xauth-generic unity";

/// What does charon's ESP.
#[derive(Clone, Debug)]
pub enum Esp {
    /// `kernel-libipsec`: ESP in UDP.
    UserSpace,
    /// Nothing: the kernel's refusals are hidden by the preloaded library at this
    /// path, and keys are written to `sa.keys` in the host's directory.
    Shim(PathBuf),
}

/// One connection, with one child, of a `swanctl.conf`.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// Phase-1 proposals.
    pub ike: String,
    /// Phase-2 proposals.
    pub esp: String,
    /// Our protected network.
    pub local_ts: String,
    /// The peer's protected network.
    pub remote_ts: String,
    /// The pre-shared key.
    pub preshared: String,
    /// Who it says it is.
    pub local_id: String,
    /// Who the peer must be.
    pub remote_id: String,
    /// How it authenticates itself.
    pub local_auth: String,
    /// How the peer must.
    pub remote_auth: String,
    /// More lines of the connection.
    pub more: String,
    /// More lines of the child.
    pub more_child: String,
    /// More at the end of the file: secrets, pools.
    pub end: String,
}

impl Connection {
    /// The connection `lab` with the child `net` between two hosts and the IPv4 networks behind them.
    #[must_use]
    pub fn new(me: &Host, peer: &Host, case: Case) -> Self {
        Self {
            local: me.outer(),
            remote: peer.outer(),
            ike: case.ike.into(),
            esp: case.esp.into(),
            local_ts: me.network(),
            remote_ts: peer.network(),
            preshared: PRESHARED.into(),
            local_id: me.outer().to_string(),
            remote_id: peer.outer().to_string(),
            local_auth: "auth = psk".into(),
            remote_auth: "auth = psk".into(),
            // Rekeying is done when a test says so.
            more: "rekey_time = 4h\n".into(),
            more_child: "rekey_time = 2h\n".into(),
            end: String::new(),
        }
    }

    fn text(&self) -> String {
        let Self { local, remote, ike, esp, local_ts, remote_ts, preshared, local_auth, remote_auth, .. } = self;
        let (local_id, remote_id) = (&self.local_id, &self.remote_id);
        let (more, more_child, end) = (&self.more, &self.more_child, &self.end);
        let (protocol, esp) = esp.strip_prefix("ah-").map_or(("esp", &**esp), |ah| ("ah", ah));
        format!(
            "connections {{ lab {{
  version = 1
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = {ike}
  {more}
  local {{ {local_auth}
    id = {local_id} }}
  remote {{ {remote_auth}
    id = {remote_id} }}
  children {{ net {{
    mode = tunnel
    local_ts = {local_ts}
    remote_ts = {remote_ts}
    {protocol}_proposals = {esp}
    {more_child}
  }} }}
}} }}
secrets {{ ike-lab {{
  id-a = {local}
  id-b = {remote}
  id-c = {local_id}
  id-d = {remote_id}
  secret = \"{preshared}\"
}} }}
{end}
"
        )
    }
}

/// A running charon.
#[derive(Debug)]
pub struct StrongSwan {
    host: Host,
    process: Background,
    run: PathBuf,
}

impl StrongSwan {
    /// Starts charon and loads the connection.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host, connection: &Connection, esp: &Esp) -> Self {
        Self::start_logging(host, connection, esp, "default = 1\n ike = 2\n flush_line = yes")
    }

    /// The same without a log, which takes time.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_silent(host: &Host, connection: &Connection, esp: &Esp) -> Self {
        Self::start_logging(host, connection, esp, "default = -1")
    }

    #[track_caller]
    fn start_logging(host: &Host, connection: &Connection, esp: &Esp, levels: &str) -> Self {
        // charon's pid file is a compiled-in path below /run: each gets a /run of its own.
        let run = host.directory.join("run");
        std::fs::create_dir_all(&run).expect("a directory for charon");
        let write = |name: &str, text: &str| std::fs::write(run.join(name), text).expect("charon's files");
        let (backend, preload) = match esp {
            Esp::UserSpace => ("kernel-libipsec kernel-netlink", None),
            Esp::Shim(library) => ("kernel-netlink", Some(library)),
        };
        let log = host.directory.join("charon.log");
        let at = run.display();
        let mut text = format!("charon {{\n  load = {PLUGINS} {backend} socket-default vici updown\n");
        let _ = write!(
            text,
            "  plugins {{ vici {{ socket = unix://{at}/charon.vici }} }}
  filelog {{ lab {{ path = {}\n {levels}\n time_format = %T }} }}
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  retransmit_tries = 3
  retransmit_timeout = 2
}}\n",
            log.display()
        );
        write("strongswan.conf", &text);
        write("swanctl.conf", &connection.text());
        let _ = std::fs::remove_file(run.join("charon.vici"));
        let _ = std::fs::remove_file(run.join("charon.pid"));
        let script = "mount --bind \"$1\" /run && { [ -z \"$3\" ] || export LD_PRELOAD=\"$3\"; exec \"$2\"; }";
        let mut command = host.command("sh");
        command
            .args(["-c", script, "sh"])
            .args([run.as_os_str(), CHARON.as_ref()])
            .arg(preload.map_or("".as_ref(), |p| p.as_os_str()))
            .env("STRONGSWAN_CONF", run.join("strongswan.conf"))
            .env("XFRM_SHIM_LOG", host.directory.join("sa.keys"));
        let out = host.directory.join("charon-out.log");
        let mut swan = Self { host: host.clone(), process: Background::spawn(&mut command, &out, &out), run };
        let socket = swan.run.join("charon.vici");
        wait::until_true("charon's control socket", 15, || {
            assert!(swan.process.is_running(), "charon ended: {}", swan.process.output());
            socket.exists()
        });
        swan.load();
        swan
    }

    /// Another connection in place of the present one; SAs stay.
    pub fn reload(&self, connection: &Connection) {
        std::fs::write(self.run.join("swanctl.conf"), connection.text()).expect("charon's files");
        self.load();
    }

    #[track_caller]
    fn load(&self) {
        self.swanctl(15, &["--load-all", "--noprompt"]).ok("swanctl --load-all");
    }

    /// Runs swanctl.
    #[track_caller]
    pub fn swanctl(&self, seconds: u64, arguments: &[&str]) -> Finished {
        let mut command = Command::new("swanctl");
        command
            .args(arguments)
            .args(["--uri", &format!("unix://{}/charon.vici", self.run.display())])
            .env("SWANCTL_DIR", &self.run)
            .env("STRONGSWAN_CONF", self.run.join("strongswan.conf"));
        process::run(&mut command, seconds)
    }

    /// Negotiates the child `net`, which must succeed.
    #[track_caller]
    pub fn initiate(&self) {
        self.swanctl(40, &["--initiate", "--child", "net", "--timeout", "30"]).ok("swanctl --initiate");
    }

    /// Tries to negotiate the child `net`, which must fail.
    #[track_caller]
    pub fn initiate_in_vain(&self, seconds: u64) -> String {
        let finished = self.swanctl(seconds + 10, &["--initiate", "--child", "net", "--timeout", &seconds.to_string()]);
        assert!(!finished.status.success(), "strongSwan succeeded where it must not:\n{}", finished.stdout);
        finished.stdout + &finished.stderr
    }

    /// Negotiates a new pair in place of the present one.
    #[track_caller]
    pub fn rekey_child(&self) {
        self.swanctl(40, &["--rekey", "--child", "net"]).ok("swanctl --rekey --child");
    }

    /// Negotiates a new ISAKMP SA in place of the present one.
    #[track_caller]
    pub fn rekey_ike(&self) {
        self.swanctl(40, &["--rekey", "--ike", "lab"]).ok("swanctl --rekey --ike");
    }

    /// Deletes the pair, with a Delete to the peer.
    #[track_caller]
    pub fn terminate_child(&self) {
        self.swanctl(40, &["--terminate", "--child", "net"]).ok("swanctl --terminate --child");
    }

    /// Deletes the ISAKMP SA and all its pairs.
    #[track_caller]
    pub fn terminate_ike(&self) {
        self.swanctl(40, &["--terminate", "--ike", "lab"]).ok("swanctl --terminate --ike");
    }

    /// The list of SAs as swanctl prints it.
    #[must_use]
    #[track_caller]
    pub fn sas(&self) -> String {
        self.swanctl(15, &["--list-sas"]).ok("swanctl --list-sas")
    }

    /// Pairs of ESP SAs that can carry packets: SPIs (inbound, outbound).
    #[must_use]
    #[track_caller]
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let sas = self.sas();
        let mut pairs = Vec::new();
        let (mut installed, mut inbound) = (false, None);
        for line in sas.lines().map(str::trim) {
            if line.contains("reqid") {
                installed = line.contains("INSTALLED");
            }
            let spi = |direction| {
                let rest = line.strip_prefix(direction)?.trim_start();
                u32::from_str_radix(rest.split([',', ' ']).next()?, 16).ok()
            };
            inbound = spi("in ").or(inbound);
            if let (true, Some(i), Some(o)) = (installed, inbound, spi("out ")) {
                pairs.push((i, o));
                inbound = None;
            }
        }
        pairs
    }

    /// ISAKMP SAs that are established.
    #[must_use]
    #[track_caller]
    pub fn isakmp_sas(&self) -> usize {
        self.sas().lines().filter(|l| l.contains("ESTABLISHED")).count()
    }

    /// Its control socket, which speaks vici.
    #[must_use]
    pub fn vici(&self) -> PathBuf {
        self.run.join("charon.vici")
    }

    /// Processor time that it has used.
    #[must_use]
    #[track_caller]
    pub fn cpu(&self) -> std::time::Duration {
        process::cpu(self.process.id())
    }

    /// What charon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.host.directory.join("charon.log");
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Ends it in good order: it deletes its SAs.
    #[track_caller]
    pub fn stop(mut self) {
        self.process.terminate(15);
    }

    /// Stops charon as it is: it hears and says nothing (SIGSTOP).
    pub fn freeze(&mut self) {
        self.process.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.process.signal(rustix::process::Signal::CONT);
    }

    /// Ends it at once: the peer is not told.
    pub fn kill(mut self) {
        self.process.kill();
        // libipsec's interface stays if charon is killed while a child of it holds it: it must not.
        wait::until_true("charon's interface to vanish", 10, || {
            !self.host.run(10, "ip", &["link", "show", "ipsec0"]).status.success()
        });
    }
}
