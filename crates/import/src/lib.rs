//! Takes keys in from another KMIP server: Locate, Get Attributes and Get there, Import here (decision 22).
//!
//! * [`run`]: all of it, as one list that is worked off.
//! * [`list`]: what there is at the source.
//! * [`gather`]: the attributes of an object, as far as they can be carried over.
//! * [`transfer`]: one object, from there to here, and the proof that it has arrived.
//! * [`identity`]: which identifier an object has here, and the mark by which it is known again.
//! * [`peer`]: a server with patience: versions, lost connections.
//! * [`report`]: what came of each object.
//!
//! Nothing is kept outside of the two servers, so that a run can be ended at any moment, and begun again: what an object is called here follows from what it is called there, and Import makes
//! it with its mark, its state and all its attributes in one step, or not at all.

mod gather;
mod identity;
mod list;
mod peer;
pub mod report;
mod transfer;

use keystead_kmip::Version;
use keystead_kmip::enumeration::ObjectType;
use keystead_kmip_client::Endpoint;
use peer::Peer;
use report::{Report, Server};
use std::time::Duration;

/// What is to be done.
pub struct Options {
    /// The server that the keys are at.
    pub source: Endpoint,
    /// What the source is called in the marks of the objects. A run knows what another one has moved by this name and the object's identifier.
    pub source_name: String,
    /// The version to speak with the source; by default, the newest that both have.
    pub source_version: Option<Version>,
    /// An EKMIP server of Keystead, with the certificate of an EKMIP client of the SVM that takes the keys.
    pub destination: Endpoint,
    /// Which objects.
    pub select: Select,
    /// Whether an object may come without those of its names that others have here.
    pub drop_taken_names: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// How often a call is tried again after the connection was lost.
    pub retries: u32,
    /// How a pause is made.
    pub pause: fn(Duration),
}

/// Which objects of the source: all conditions that are given must hold. Without any, all that it shows to this client.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// With one of these names.
    pub names: Vec<String>,
    /// Of this Object Group.
    pub group: Option<String>,
    /// Of this type.
    pub object_type: Option<ObjectType>,
}

/// Why a run ended before its end: one line, which says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abort(pub String);

/// Works off all objects. `progress` is told after each, with how many there are.
///
/// It does not fail: what stopped it stands in the report ([`Report::error`]), with all that was done until then.
pub fn run(options: &Options, progress: &mut dyn FnMut(&Report)) -> Report {
    let mut report = Report {
        version: report::VERSION,
        dry_run: options.dry_run,
        source: Server { name: Some(options.source_name.clone()), ..Server::at(options.source.address()) },
        destination: Server::at(options.destination.address()),
        complete: false,
        error: None,
        found: None,
        objects: Vec::new(),
    };
    match work(options, &mut report, progress) {
        Ok(()) => report.complete = true,
        Err(Abort(why)) => report.error = Some(why),
    }
    report
}

fn work(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&Report)) -> Result<(), Abort> {
    let mut source = Peer::new("source", options.source.clone(), options.retries, options.pause);
    let mut destination = Peer::new("destination", options.destination.clone(), options.retries, options.pause);
    source.agree(options.source_version, Version::SUPPORTED)?;
    report.source.protocol_version = Some(source.version.to_string());
    // What the source can say, the destination must be able to hear. Import came with 1.4.
    let wanted = if source.version >= Version::V2_0 { Version::V2_1 } else { Version::V1_4 };
    destination.agree(None, &[wanted]).map_err(|Abort(why)| Abort(format!("{why}; objects are imported into the EKMIP server of Keystead alone")))?;
    report.destination.protocol_version = Some(destination.version.to_string());
    let ids = list::list(&mut source, &options.select)?;
    report.found = Some(ids.len());
    progress(report);
    let mut mover = transfer::Mover::new(source, destination, options);
    for id in ids {
        let entry = mover.transfer(id)?;
        report.objects.push(entry);
        progress(report);
    }
    Ok(())
}
