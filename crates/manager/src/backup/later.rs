//! What a restore brings back to life, and what it loses, by a second backup that was taken later: of the store that is given up. It is exact, and needs no audit log.

use super::comeback::Comeback;
use super::words::Told;
use super::{Backup, Inventory};
use crate::keys::record::parse;
use crate::records::{AccountRecord, AwsKmsRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, KekRecord, SvmRecord, key};
use crate::settings::Settings;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Compares a backup with a later one of the same cluster.
///
/// # Errors
/// A line: the other is of another cluster, or is not later; a record in one of them is damaged.
pub fn compare_later(older: (&Backup, &Inventory), later: (&Backup, &Inventory)) -> Result<Comeback, String> {
    let (was, is) = (older.1, later.1);
    if was.header.cluster != is.header.cluster {
        return Err(format!("it is of another cluster, {} ({})", is.header.cluster_name, is.header.cluster));
    }
    if is.header.made < was.header.made {
        return Err(format!("it is older ({}) than what is to be restored ({})", is.header.made, was.header.made));
    }
    let mut comeback = Comeback::default();
    keys(older, later, &mut comeback)?;
    let gone = |is_gone: bool| is_gone.then_some("was deleted since");
    records::<SvmRecord>(was, is, &mut comeback, |_, now| gone(now.is_none()))?;
    records::<AwsKmsRecord>(was, is, &mut comeback, |then, now| match now {
        None => gone(true),
        Some(now) => (AwsKmsRecord { unproven: now.unproven, ..then.clone() } != *now).then_some("had other settings or credentials since"),
    })?;
    records::<KekRecord>(was, is, &mut comeback, |then, now| match now {
        None => Some("was retired since"),
        Some(now) => (now.blob != then.blob).then_some("was wrapped anew since"),
    })?;
    records::<EkmipClientRecord>(was, is, &mut comeback, |then, now| match now {
        _ if then.revoked.is_some() => None,
        None => gone(true),
        Some(now) => now.revoked.is_some().then_some("was revoked since"),
    })?;
    records::<EkmipClientCaRecord>(was, is, &mut comeback, |_, now| gone(now.is_none()))?;
    records::<CertificateRecord>(was, is, &mut comeback, |_, now| gone(now.is_none()))?;
    records::<AccountRecord>(was, is, &mut comeback, |then, now| match now {
        None => gone(true),
        Some(now) => (now != then).then_some("had another password, role or way to log in since"),
    })?;
    let settings = |inventory: &Inventory| inventory.get::<Settings>(&key::<Settings>(""));
    if settings(was) != settings(is) {
        comeback.lost.push("the settings of the cluster as they are now".to_owned());
    }
    Ok(comeback)
}

fn keys(older: (&Backup, &Inventory), later: (&Backup, &Inventory), comeback: &mut Comeback) -> Result<(), String> {
    let (was, is) = (older.1, later.1);
    // Of those that are not destroyed, their SVMs.
    let mut now = HashMap::new();
    each_key(later.0, |svm, id, destroyed| {
        now.insert(id, (!destroyed).then_some(svm));
    })?;
    each_key(older.0, |svm, id, destroyed| {
        let then = now.remove(&id);
        let what = match then {
            _ if destroyed => return,
            None => "was deleted since, with its SVM",
            Some(None) => "was destroyed since",
            Some(Some(_)) => return,
        };
        comeback.alive.push(format!("the key {id} of the SVM {}, which {what}", was.svm_name(svm)));
    })?;
    let mut made = BTreeMap::<Uuid, u64>::new();
    for svm in now.into_values().flatten() {
        *made.entry(svm).or_default() += 1;
    }
    for (svm, count) in made {
        let name = is.svm_name(svm);
        comeback.lost.push(format!("{count} keys that were made in the SVM {name} since: what was encrypted with them cannot be read any more"));
    }
    Ok(())
}

/// Each key of a backup: its SVM, its identifier, and whether it is destroyed.
fn each_key(backup: &Backup, mut take: impl FnMut(Uuid, Uuid, bool)) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
    let (_, mut reader) = backup.read().map_err(failed)?;
    while let Some(kept) = reader.next().map_err(failed)? {
        if let Some((svm, id, destroyed)) = parse(&kept.key) {
            take(svm, id, destroyed);
        }
    }
    Ok(())
}

/// The records of a kind. `comes_back`: what has happened to one since that the restore undoes, seen from both; the later is missing where it was deleted.
fn records<R: Told + PartialEq>(
    was: &Inventory,
    is: &Inventory,
    comeback: &mut Comeback,
    comes_back: impl Fn(&R, Option<&R>) -> Option<&'static str>,
) -> Result<(), String> {
    let text = |error: crate::Error| error.detail.unwrap_or(error.message);
    for then in was.all::<R>() {
        let then = then.map_err(text)?;
        if let Some(what) = comes_back(&then.record, is.get::<R>(&then.key).as_ref()) {
            comeback.alive.push(format!("{}, which {what}", then.record.told(was)));
        }
    }
    for now in is.all::<R>() {
        let now = now.map_err(text)?;
        if was.get::<R>(&now.key).is_none() {
            comeback.lost.push(now.record.told(is));
        }
    }
    Ok(())
}
