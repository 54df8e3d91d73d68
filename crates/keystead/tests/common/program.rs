//! The program as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A running `keystead serve`.
pub struct Program {
    pub child: Child,
    pub port: u16,
    pub ekmip: std::net::SocketAddr,
    pub folder: PathBuf,
    pub log: PathBuf,
}

/// A port that is free, below those that the kernel gives to connections: of these, any may be taken before the program listens there.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different places.
    let start = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start)).unwrap();
    let _ = NEXT.compare_exchange(0, PORTS.start + start, Ordering::SeqCst, Ordering::SeqCst);
    for _ in PORTS {
        let port = NEXT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |port| Some(if port + 1 < PORTS.end { port + 1 } else { PORTS.start })).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free from {} to {}", PORTS.start, PORTS.end);
}

/// Linux gives connections ports from 32768 on (ip_local_port_range).
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// `keystead serve` with a data folder and ports, not yet started; the surroundings hold nothing of Keystead's.
pub fn serve(folder: &Path, port: u16, ekmip_port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    serve_by(&mut command, folder, ([127, 0, 0, 1], port).into(), ([127, 0, 0, 1], ekmip_port).into());
    command
}

/// The same by a command that ends with the program, at any addresses.
pub fn serve_by(command: &mut Command, folder: &Path, listen: SocketAddr, ekmip: SocketAddr) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KEYSTEAD_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", &listen.to_string(), "--ekmip-listen", &ekmip.to_string(), "--data-dir"]).arg(folder.join("data")).stdin(Stdio::null());
}

/// Runs a start that must fail; returns what it said.
pub fn fails(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let watchdog = std::thread::spawn(move || child.wait_with_output().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !watchdog.is_finished() {
        if Instant::now() > deadline {
            let _ = Command::new("kill").arg(pid.to_string()).status();
            panic!("the program should have ended by itself");
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    watchdog.join().unwrap()
}

impl Program {
    /// Starts the program with a configuration file, and waits until requests are served.
    pub async fn start(folder: &Path, toml: &str, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let config = folder.join("keystead.toml");
        std::fs::write(&config, toml).unwrap();
        let log = folder.join("keystead.log");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let ekmip = free_port();
        let mut command = serve(folder, port, ekmip);
        command.arg("--config").arg(&config).envs(environment.iter().copied());
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let mut program = Self { child, port, ekmip: ([127, 0, 0, 1], ekmip).into(), folder: folder.to_owned(), log };
        super::eventually("the program must serve requests", async || {
            if let Some(status) = program.child.try_wait().unwrap() {
                panic!("the program has ended with {status}: {}", program.said());
            }
            let ca = std::fs::read(folder.join("data/ca.pem")).ok()?;
            let answer = super::client(&ca).get(format!("https://127.0.0.1:{port}/healthz")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        program
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn client(&self) -> reqwest::Client {
        super::client(&std::fs::read(self.folder.join("data/ca.pem")).unwrap())
    }

    /// Sends a signal: `-TERM`, `-KILL`.
    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Ends it with SIGTERM; returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
