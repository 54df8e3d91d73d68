//! `/security/aws-kms`: the AWS KMS configurations of SVMs.

mod change;
mod fields;
mod live;

pub use change::{create, delete, modify, preflight, rekey_external, rekey_internal, restore};
pub use fields::{AWS_KMS, PREFLIGHT, REKEY_EXTERNAL};

use crate::collection::{Listing, One};
use crate::request::{Answer, Request};
use fields::Record;
use keystead_manager::model::AwsKms;
use keystead_manager::{Code, Error, Result};
use live::{OBJECTS, Wanted};
use uuid::Uuid;

/// The configurations.
pub async fn list(request: Request) -> Result<Answer> {
    let mut listing = Listing::parse(&AWS_KMS, &request.query)?;
    let wanted = Wanted::new(|object| listing.wants(object), true);
    let stored = request.manager.aws_kms_list().filter(|config| request.sees(config.svm())).map(stored);
    if !OBJECTS.iter().any(|object| listing.wants(object)) {
        return request.page_keeping(listing, stored, |record, with_links| record.config.text(usize::from(with_links)));
    }
    // Only what the answer can show is looked at live: what other filters leave out, and other pages, cost no probe.
    let candidates: Vec<Record> = stored.filter(|record| listing.may_pass(record, &OBJECTS)).collect();
    let records = if OBJECTS.iter().any(|object| listing.sorts_by(object)) {
        candidates
    } else if OBJECTS.iter().any(|object| listing.decides_by(object)) {
        // Those are looked at that the page shows first.
        listing.sorted(candidates)
    } else {
        listing.first(candidates.into_iter())
    };
    let records = live::look_at_all(&request, records, wanted).await;
    request.page(listing, records)
}

/// One configuration.
pub async fn show(request: Request) -> Result<Answer> {
    let one = One::parse(&AWS_KMS, &request.query)?;
    let record = live::look(&request, visible(&request)?, Wanted::new(|object| one.wants(object), false)).await;
    Ok(request.show(&one, &record))
}

/// The configuration of the path, if this account may see it.
fn visible(request: &Request) -> Result<AwsKms> {
    let config = request.manager.aws_kms(request.uuid()?)?;
    if request.sees(config.svm()) { Ok(config) } else { Err(Error::new(Code::NotFound).target("uuid")) }
}

/// The UUID of the path, if this account may see whose it is: of a configuration, or of one that is being enabled.
fn known(request: &Request) -> Result<Uuid> {
    let uuid = request.uuid()?;
    if request.sees(request.manager.aws_kms_svm(uuid)?) { Ok(uuid) } else { Err(Error::new(Code::NotFound).target("uuid")) }
}

fn stored(config: AwsKms) -> Record {
    Record { config, live: None }
}
