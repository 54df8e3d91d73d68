//! A network of a test's own: hosts that can be cut off from each other, and whose links can be made slow.
//!
//! A test that wants one runs again, as a process of its own, in namespaces of its own (network, mounts, processes). All that it makes there, hosts, links, disks and programs, goes with that
//! process, and nothing of the machine's own network is touched.
//!
//! Each host is a network namespace with two links: one to the switch by which hosts and what they depend on speak to each other, one to the switch by which clients come. So a host that is cut
//! off can still be asked what it does. The test itself is on both switches.
//!
//! It needs the programs `unshare` and `setpriv` (util-linux), and `ip`, `bridge` and `tc` (iproute2); and to be root, or user namespaces. Where these cannot be had, the test fails and says so.

use rustix::process::geteuid;
use std::io::{self, BufRead as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// Set in the process that runs in the namespaces.
const INSIDE: &str = "TESTKIT_INSIDE_NAMESPACES";
/// What to do where there are no namespaces.
const ADVICE: &str = "this test makes network namespaces of its own, and cannot have them here. Run it as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN, and without a seccomp profile \
    that forbids unshare), or as a user who may make user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)";

/// The network of a test.
#[derive(Debug)]
pub struct Network(());

/// A host: a network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    number: u8,
}

/// One of the two switches.
#[derive(Debug, Clone, Copy)]
struct Switch {
    name: &'static str,
    /// Of the test's link.
    link: &'static str,
    network: [u8; 3],
}

/// Where hosts speak to each other.
const INNER: Switch = Switch { name: "inner", link: "eth0", network: [10, 77, 0] };
/// Where clients come from.
const OUTER: Switch = Switch { name: "outer", link: "eth1", network: [10, 78, 0] };

/// How slow a link is, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Bits in a second.
    pub bits: u32,
    /// What would wait longer than this is lost, in milliseconds.
    pub wait: u32,
}

/// Runs a test with a network of its own. `test` is its name with its modules, as `cargo test -- --exact` takes it. What it prints is printed.
///
/// # Errors
/// The test has failed; or there are no namespaces, and it has not run at all.
pub fn with_network<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Network) -> F) -> io::Result<()> {
    // The first process of its namespace: the variable alone could be left over from anywhere.
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) && std::process::id() == 1 {
        let network = Network::make()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(body(network));
        return Ok(());
    }
    let (output, input) = io::pipe()?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(std::env::current_exe()?).args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, test).stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn().map_err(|error| io::Error::other(format!("{ADVICE}: setpriv: {error}")))?;
    // It holds the pipe's other end, which would never be at its end then.
    drop(command);
    let (mut said, mut passed) = (Vec::new(), false);
    for line in io::BufReader::new(output).lines() {
        let line = line?;
        passed |= line.starts_with("test result: ok. 1 passed");
        println!("{line}");
        said.push(line);
    }
    let status = child.wait()?;
    if passed && status.success() {
        return Ok(());
    }
    let has = |wanted: &str| said.iter().any(|line| line == wanted);
    Err(io::Error::other(if has("running 1 test") {
        format!("{test} has failed in its namespaces, see above ({status})")
    } else if has("running 0 tests") {
        format!("there is no test {test}")
    } else {
        format!("{ADVICE}: {status}: {}", said.join("; "))
    }))
}

impl Network {
    /// The address of the test itself where hosts speak to each other.
    pub const INNER_ADDRESS: IpAddr = INNER.address(1);

    fn make() -> io::Result<Self> {
        // Names of namespaces are files below /run, and stay this test's own there.
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        std::fs::create_dir("/run/netns")?;
        run("ip", &["link", "set", "lo", "up"])?;
        for switch in [INNER, OUTER] {
            run("ip", &["link", "add", switch.name, "type", "bridge"])?;
            run("ip", &["addr", "add", &format!("{}/24", switch.address(1)), "dev", switch.name])?;
            run("ip", &["link", "set", switch.name, "up"])?;
        }
        Ok(Self(()))
    }

    /// Makes a host. Its name has at most 10 bytes, its number is 2 to 254; both are no other's.
    ///
    /// # Errors
    /// The machine does not let us; the text says which call has failed.
    pub fn host(&self, name: &str, number: u8) -> io::Result<Host> {
        let host = Host { name: name.to_owned(), number };
        run("ip", &["netns", "add", name])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        for switch in [INNER, OUTER] {
            let port = host.port(switch);
            run("ip", &["link", "add", &port, "type", "veth", "peer", "name", switch.link, "netns", name])?;
            run("ip", &["link", "set", &port, "master", switch.name, "up"])?;
            run("ip", &["-n", name, "addr", "add", &format!("{}/24", switch.address(number)), "dev", switch.link])?;
            run("ip", &["-n", name, "link", "set", switch.link, "up"])?;
        }
        Ok(host)
    }
}

impl Host {
    /// Its name, which is that of its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address for other hosts.
    pub fn inner_address(&self) -> IpAddr {
        INNER.address(self.number)
    }

    /// Its address for clients.
    pub fn outer_address(&self) -> IpAddr {
        OUTER.address(self.number)
    }

    /// The program and the first arguments that run a command there. It becomes that command: it keeps its process, and signals reach it.
    pub fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    /// Cuts it off from all other hosts: the switch drops what comes from it and what goes to it, without a word to either. Clients still reach it.
    ///
    /// # Errors
    /// The call of `bridge` has failed.
    pub fn cut_off(&self) -> io::Result<()> {
        run("bridge", &["link", "set", "dev", &self.port(INNER), "state", "0"])
    }

    /// Ends that it is cut off.
    ///
    /// # Errors
    /// As [`Host::cut_off`].
    pub fn join_again(&self) -> io::Result<()> {
        run("bridge", &["link", "set", "dev", &self.port(INNER), "state", "3"])
    }

    /// Makes its link to other hosts slow, both ways: what it sends waits in a queue, and is lost where that is full. (Not every kernel has `netem`, by which packets would be held for so long each.)
    ///
    /// # Errors
    /// The call of `tc` has failed.
    pub fn slow_down(&self, rate: Rate) -> io::Result<()> {
        let (bits, wait) = (format!("{}bit", rate.bits), format!("{}ms", rate.wait));
        let limit = ["root", "tbf", "rate", &bits, "burst", "2kb", "latency", &wait];
        run("tc", &[&["qdisc", "replace", "dev", &self.port(INNER)], &limit[..]].concat())?;
        run("tc", &[&["-n", &self.name, "qdisc", "replace", "dev", INNER.link], &limit[..]].concat())
    }

    /// Ends that it is slow.
    ///
    /// # Errors
    /// As [`Host::slow_down`].
    pub fn speed_up(&self) -> io::Result<()> {
        run("tc", &["qdisc", "del", "dev", &self.port(INNER), "root"])?;
        run("tc", &["-n", &self.name, "qdisc", "del", "dev", INNER.link, "root"])
    }

    /// The switch's end of a link; at most 15 bytes, as names of links have.
    fn port(&self, switch: Switch) -> String {
        let kind = switch.name.get(..1).unwrap_or_default();
        format!("{kind}-{}", self.name)
    }
}

impl Switch {
    const fn address(self, number: u8) -> IpAddr {
        let [a, b, c] = self.network;
        IpAddr::V4(Ipv4Addr::new(a, b, c, number))
    }
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::process::Child;

    const SOON: Duration = Duration::from_secs(10);

    /// A process of the host that sends what is asked of the test's own address.
    fn fetch(host: &Host, port: u16) -> Child {
        let mut bash = host.command();
        bash.args(["bash", "-c", &format!("exec 3<>/dev/tcp/{}/{port}; cat <&3 >/dev/null", Network::INNER_ADDRESS)]);
        tokio::process::Command::from(bash).kill_on_drop(true).spawn().unwrap()
    }

    #[test]
    fn hosts_are_cut_off_slow_and_well_again() {
        let test = async |network: Network| {
            let host = network.host("one", 11).unwrap();
            let listener = TcpListener::bind((Network::INNER_ADDRESS, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let accepted = async |limit: Duration| tokio::time::timeout(limit, listener.accept()).await.ok().map(|accepted| accepted.unwrap());

            let mut child = fetch(&host, port);
            let (mut stream, from) = accepted(SOON).await.unwrap();
            assert_eq!(from.ip(), host.inner_address());
            stream.shutdown().await.unwrap();
            drop(stream);
            assert!(child.wait().await.unwrap().success());

            // Nothing comes through, and nobody says so: what was begun goes on afterwards.
            host.cut_off().unwrap();
            let child = fetch(&host, port);
            assert!(accepted(Duration::from_millis(500)).await.is_none(), "it is cut off");
            host.join_again().unwrap();
            let (mut stream, _) = accepted(SOON).await.unwrap();

            // 40 kB at 256 kbit/s take more than a second.
            host.slow_down(Rate { bits: 256_000, wait: 2_000 }).unwrap();
            let began = Instant::now();
            let sent = send(&mut stream).await;
            assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
            assert_eq!(sent, 0, "the host has read it all and says nothing");
            host.speed_up().unwrap();
            drop((stream, child));

            let child = fetch(&host, port);
            let (mut stream, _) = accepted(SOON).await.unwrap();
            let began = Instant::now();
            send(&mut stream).await;
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            drop(child);
        };
        with_network("network::tests::hosts_are_cut_off_slow_and_well_again", test).unwrap();
    }

    /// Sends 40 kB, and waits until the host has ended.
    async fn send(stream: &mut TcpStream) -> usize {
        stream.write_all(&[7; 40_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read(&mut [0; 1]).await.unwrap()
    }

    #[test]
    fn what_fails_inside_fails_outside() {
        let failed = with_network("network::tests::what_fails_inside_fails_outside", async |_| assert!(std::process::id() != 1, "as it should"));
        // Inside, the line above has ended the test.
        assert!(failed.unwrap_err().to_string().contains("has failed in its namespaces"));
        let none = with_network("network::tests::there_is_no_such_test", async |_| {});
        assert!(none.unwrap_err().to_string().contains("there is no test"), "a test that has not run has not passed");
    }
}
