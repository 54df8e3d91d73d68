//! The AWS KMS stand-in as a process of its own. Prints `ready URL` on one line when it listens; ends on SIGTERM or SIGINT.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use keystead_testkit::{Identity, KmsStandIn, Options, Tls};
use tokio::signal::unix::{SignalKind, signal};

/// A fault-injecting stand-in for AWS KMS, for tests. Control it under /_control/.
#[derive(Parser)]
struct Args {
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The certificate chain, PEM, leaf first
    #[arg(long, requires = "key", conflicts_with = "self_signed")]
    cert: Option<PathBuf>,
    /// The private key, PEM
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Make a CA and a certificate; the CA is written to DIR/ca.pem
    #[arg(long, value_name = "DIR")]
    self_signed: Option<PathBuf>,
    /// A DNS name or address for --self-signed; may be repeated
    #[arg(long, default_values = ["127.0.0.1", "localhost"])]
    name: Vec<String>,
    /// The account in ARNs
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// The region of keys that are not told otherwise
    #[arg(long, default_value = "us-east-1")]
    region: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kms-standin: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let tls = match (&args.cert, &args.key, &args.self_signed) {
        (Some(cert), Some(key), _) => Tls::Identity(Identity { cert_pem: read(cert)?, key_pem: read(key)?, ca_pem: None }),
        (_, _, Some(_)) => Tls::SelfSigned(args.name),
        _ => Tls::Off,
    };
    let options = Options { listen: args.listen, tls, account: args.account, region: args.region };
    let listen = options.listen;
    let stand_in = KmsStandIn::start(options).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    if let (Some(folder), Some(ca)) = (&args.self_signed, stand_in.ca_pem()) {
        let file = folder.join("ca.pem");
        fs::write(&file, ca).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    }
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    writeln!(std::io::stdout(), "ready {}", stand_in.endpoint())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn read(path: &PathBuf) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
