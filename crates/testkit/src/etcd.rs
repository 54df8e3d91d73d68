//! A real etcd: the program `etcd` of the machine (Debian's package `etcd-server`), some members of it, with mutual TLS.

use crate::disk::Disk;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long members may take until they are a cluster.
const START: Duration = Duration::from_secs(60);
/// How many bytes of what a member says of itself are read.
const MAX_ANSWER: u64 = 4 << 20;
/// How often other ports are tried where somebody else took one first.
const ATTEMPTS: usize = 5;

/// Where a member is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its address.
    pub address: IpAddr,
    /// The network namespace that it runs in.
    pub namespace: Option<String>,
    /// The size of a disk of its own, in bytes. etcd takes 64 MB at once for its log. It can be had inside the namespaces of a test ([`crate::network::with_network`]).
    pub disk: Option<u64>,
}

impl Default for Place {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), namespace: None, disk: None }
    }
}

/// What a client of this etcd needs, in PEM.
#[derive(Clone)]
pub struct ClientTls {
    /// The CA of the members.
    pub ca: String,
    /// A certificate that they take.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// A running etcd. Dropping it ends its members.
pub struct Etcd {
    // Before the folder that its disks are in.
    members: Vec<Member>,
    folder: tempfile::TempDir,
    tls: ClientTls,
}

struct Member {
    name: String,
    place: Place,
    client: u16,
    peer: u16,
    metrics: u16,
    child: Option<Child>,
    disk: Option<Disk>,
}

impl Etcd {
    /// Starts so many members on the loopback interface and waits until they serve.
    ///
    /// # Errors
    /// There is no program `etcd` (scripts/test-env installs it), or the members do not become a cluster; the text has the end of their logs.
    pub async fn start(members: usize) -> io::Result<Self> {
        Self::start_at(vec![Place::default(); members]).await
    }

    /// Starts a member in each place and waits until they serve.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn start_at(places: Vec<Place>) -> io::Result<Self> {
        let mut failure = io::Error::other("no attempt");
        for _ in 0..ATTEMPTS {
            let mut etcd = Self::prepare(&places)?;
            for member in 0..places.len() {
                etcd.spawn(member)?;
            }
            match etcd.ready().await {
                Ok(()) => return Ok(etcd),
                Err(error) => failure = error,
            }
            if !failure.to_string().contains("address already in use") {
                break;
            }
        }
        Err(failure)
    }

    /// The client URLs of the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://{}", member.address(member.client))).collect()
    }

    /// How clients authenticate.
    pub fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// What a member measures of itself, by name, labels included ("/metrics"); times are in seconds, sizes in bytes.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, member: usize) -> io::Result<BTreeMap<String, f64>> {
        let member = self.members.get(member).ok_or_else(|| io::Error::other(format!("there is no member {member}")))?;
        let answer = ask(member.address(member.metrics), "/metrics").await?;
        let lines = answer.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The folder that a member keeps its data in.
    pub fn data(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("m{member}"))
    }

    /// The disk of a member.
    ///
    /// # Errors
    /// It has none of its own.
    pub fn disk(&self, member: usize) -> io::Result<&Disk> {
        self.members.get(member).and_then(|member| member.disk.as_ref()).ok_or_else(|| io::Error::other(format!("the member {member} has no disk of its own")))
    }

    /// Whether a member's process has ended by itself.
    ///
    /// # Errors
    /// It was not started, or was killed.
    pub fn has_ended(&mut self, member: usize) -> io::Result<bool> {
        let child = self.member(member)?.child.as_mut().ok_or_else(|| io::Error::other("this member does not run"))?;
        Ok(child.try_wait()?.is_some())
    }

    /// The member that leads, as one says of itself that can be reached.
    pub async fn leader(&self) -> Option<usize> {
        for (number, member) in self.members.iter().enumerate() {
            if ask(member.address(member.metrics), "/metrics").await.is_ok_and(|metrics| metrics.contains("\netcd_server_is_leader 1\n")) {
                return Some(number);
            }
        }
        None
    }

    /// Ends a member as `kill -9` does.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, member: usize) -> io::Result<()> {
        match self.member(member)?.child.take() {
            Some(mut child) => child.kill().await,
            None => Err(io::Error::other("this member does not run")),
        }
    }

    /// Starts a member again that was killed, or has ended. Its data is what the disk has.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, member: usize) -> io::Result<()> {
        self.spawn(member)
    }

    /// Stops a member without ending it (SIGSTOP), so that its connections hang.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&mut self, member: usize) -> io::Result<()> {
        self.signal(member, Signal::STOP)
    }

    /// Lets a member go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&mut self, member: usize) -> io::Result<()> {
        self.signal(member, Signal::CONT)
    }

    /// Waits until every member that runs says that it is healthy: it has a leader, and takes proposals.
    ///
    /// # Errors
    /// They are not within a minute; the text has the end of their logs.
    pub async fn ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START;
        for place in 0..self.members.len() {
            loop {
                let member = self.member(place)?;
                let Some(child) = &mut member.child else { break };
                let ended = child.try_wait()?;
                if ended.is_none() && healthy(member.address(member.metrics)).await {
                    break;
                }
                if ended.is_some() || Instant::now() > deadline {
                    let log = std::fs::read_to_string(self.folder.path().join(format!("m{place}.log"))).unwrap_or_default();
                    let end: Vec<&str> = log.lines().rev().take(15).collect();
                    return Err(io::Error::other(format!(
                        "the member m{place} of etcd does not serve: {}",
                        end.into_iter().rev().collect::<Vec<_>>().join("\n")
                    )));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn prepare(places: &[Place]) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let addresses: Vec<String> = places.iter().map(|place| place.address.to_string()).collect();
        let tls = write_certificates(folder.path(), &addresses).map_err(io::Error::other)?;
        let mut members = Vec::new();
        for (number, place) in places.iter().enumerate() {
            // In a namespace of its own a member has all ports for itself.
            let (client, peer, metrics) = if place.namespace.is_some() { (2379, 2380, 2381) } else { (free_port()?, free_port()?, free_port()?) };
            let name = format!("m{number}");
            let disk = place.disk.map(|bytes| Disk::mount(&folder.path().join(&name), bytes)).transpose()?;
            members.push(Member { name, place: place.clone(), client, peer, metrics, child: None, disk });
        }
        Ok(Self { folder, members, tls })
    }

    fn spawn(&mut self, number: usize) -> io::Result<()> {
        let cluster: Vec<String> = self.members.iter().map(|member| format!("{}=https://{}", member.name, member.address(member.peer))).collect();
        let folder = self.folder.path().to_owned();
        let member = self.member(number)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{}.log", member.name)))?;
        let (client, peer) = (format!("https://{}", member.address(member.client)), format!("https://{}", member.address(member.peer)));
        // A test that dies takes its members along: setpriv(1) has the kernel see to that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(namespace) = &member.place.namespace {
            command.args(["ip", "netns", "exec", namespace]);
        }
        command
            .arg("etcd")
            .args(["--name", &member.name, "--data-dir"])
            .arg(folder.join(&member.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "keystead-test"])
            .args(["--listen-metrics-urls", &format!("http://{}", member.address(member.metrics))])
            // As etcd is from 3.5 on, and as operators of 3.4 are told to run it: a member that was cut off does not unseat the leader when it is back.
            .arg("--pre-vote")
            .args(["--client-cert-auth", "--peer-client-cert-auth", "--logger", "zap"]);
        for (flag, file) in [("trusted-ca-file", "ca.pem"), ("cert-file", "member.pem"), ("key-file", "member.key")] {
            command.arg(format!("--{flag}")).arg(folder.join(file)).arg(format!("--peer-{flag}")).arg(folder.join(file));
        }
        let child = command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        member.child = Some(child.kill_on_drop(true).spawn()?);
        Ok(())
    }

    fn signal(&mut self, member: usize, signal: Signal) -> io::Result<()> {
        let child = self.member(member)?.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(child.ok_or_else(|| io::Error::other("this member does not run"))?, signal)?;
        Ok(())
    }

    fn member(&mut self, number: usize) -> io::Result<&mut Member> {
        self.members.get_mut(number).ok_or_else(|| io::Error::other(format!("there is no member {number}")))
    }
}

impl Member {
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.place.address, port)
    }
}

/// etcd's own word on its health ("/health", with `--listen-metrics-urls`).
async fn healthy(address: SocketAddr) -> bool {
    ask(address, "/health").await.is_ok_and(|answer| answer.contains(r#""health":"true""#))
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(2), asking).await?
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// One CA; a certificate that all members share, for the addresses of all; one for clients.
fn write_certificates(folder: &Path, addresses: &[String]) -> Result<ClientTls, Box<dyn std::error::Error + Send + Sync>> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(DnType::CommonName, "etcd test CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |name: &str, addresses: &[String]| -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(addresses.to_vec())?;
        leaf.use_authority_key_identifier_extension = true;
        // A member is a client as well: of other members, and of itself.
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.distinguished_name.push(DnType::CommonName, name);
        Ok((leaf.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (member, member_key) = leaf("etcd member", addresses)?;
    let (certificate, key) = leaf("keystead", &[])?;
    for (file, text) in [("ca.pem", &ca_pem), ("member.pem", &member), ("member.key", &member_key)] {
        std::fs::write(folder.join(file), text)?;
    }
    Ok(ClientTls { ca: ca_pem, certificate, key })
}
