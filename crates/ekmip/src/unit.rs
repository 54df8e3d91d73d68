//! A unit of work: what an item of a batch, or a batch with Undo, reads and changes, committed together.
//!
//! An operation works on the unit alone. So undoing a batch is not committing it, and the same code serves both ways.

use crate::managed::Managed;
use crate::reason::failure;
use keystead_kmip::enumeration::{ObjectType, ResultReason};
use keystead_kmip::{Failure, Result};
use keystead_manager::keys::{Change, CommitError, KeyObject, Keys};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How many objects one unit may change: what fits in a transaction of the store, with their names.
const MOST: usize = 30;

/// How many objects a search looks at before it lets others run.
const AT_A_TIME: usize = 500;

/// Where an object comes from.
#[derive(Clone)]
pub enum Source {
    /// From the store.
    Stored(Arc<KeyObject>),
    /// Made by this unit.
    New(Option<Arc<Zeroizing<Vec<u8>>>>),
}

/// An object with where it comes from.
pub struct Found {
    /// Its attributes.
    pub object: Managed<'static>,
    source: Source,
    destroyed: bool,
}

/// Work that is not committed yet.
pub struct Unit<'k> {
    keys: &'k Keys,
    staged: BTreeMap<Uuid, Found>,
}

/// Why a unit was not committed.
pub enum Unsaved {
    /// Something it had read has changed: do it again.
    Repeat,
    /// It cannot be.
    Failed(Failure),
}

impl Found {
    /// Whether its secret is gone.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed
    }

    /// About how many bytes it has, attributes and secret.
    pub fn size(&self) -> usize {
        match &self.source {
            Source::Stored(stored) => stored.size(),
            // It came with this very message, whose room it is counted in; what was made here is small.
            Source::New(secret) => secret.as_ref().map_or(0, |secret| secret.len()),
        }
    }
}

impl<'k> Unit<'k> {
    /// Work on the keys of an SVM.
    pub fn new(keys: &'k Keys) -> Self {
        Self { keys, staged: BTreeMap::new() }
    }

    /// An object, as this unit sees it.
    ///
    /// # Errors
    /// Item Not Found, in the same words whether it does not exist or is another SVM's.
    pub async fn find(&self, id: Uuid) -> Result<Found> {
        if let Some(staged) = self.staged.get(&id) {
            return Ok(Found { object: staged.object.clone(), source: staged.source.clone(), destroyed: staged.destroyed });
        }
        let stored = self.keys.get(id).await.map_err(|error| failure(&error))?.ok_or_else(|| not_found(&id.to_string()))?;
        let object = Managed::decode(id, stored.attributes())?.into_owned();
        Ok(Found { object, destroyed: stored.destroyed, source: Source::Stored(stored) })
    }

    /// All objects with a term, or all, as this unit sees them.
    ///
    /// # Errors
    /// General Failure where the store cannot be read.
    pub async fn search(&self, term: Option<u64>, mut visit: impl FnMut(&Managed<'_>, bool)) -> Result<()> {
        for (number, stored) in self.keys.find(term).await.map_err(|error| failure(&error))?.into_iter().enumerate() {
            // A search through a million keys takes its time; others are served meanwhile.
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            if !self.staged.contains_key(&stored.id) {
                visit(&Managed::decode(stored.id, stored.attributes())?, stored.destroyed);
            }
        }
        for staged in self.staged.values() {
            visit(&staged.object, staged.destroyed);
        }
        Ok(())
    }

    /// The secret of an object; `None` where it has none.
    ///
    /// # Errors
    /// Permission Denied while the SVM is blocked.
    pub fn secret(&self, found: &Found) -> Result<Option<Arc<Zeroizing<Vec<u8>>>>> {
        match &found.source {
            Source::New(secret) => {
                self.keys.usable().map_err(|error| failure(&error))?;
                Ok(secret.clone())
            }
            Source::Stored(stored) => Ok(self.keys.open(stored).map_err(|error| failure(&error))?.map(Arc::new)),
        }
    }

    /// Makes an object.
    ///
    /// # Errors
    /// Response Too Large's sibling for batches: too many changes.
    pub fn create(&mut self, object: Managed<'static>, secret: Option<Zeroizing<Vec<u8>>>) -> Result<()> {
        self.stage(Found { object, source: Source::New(secret.map(Arc::new)), destroyed: false })
    }

    /// Changes an object's attributes.
    ///
    /// # Errors
    /// As [`Unit::create`].
    pub fn change(&mut self, found: Found) -> Result<()> {
        self.stage(found)
    }

    /// Takes an object's secret away.
    ///
    /// # Errors
    /// As [`Unit::create`].
    pub fn destroy(&mut self, found: Found) -> Result<()> {
        self.stage(Found { destroyed: true, ..found })
    }

    /// Commits all of it. On return it is durable.
    ///
    /// # Errors
    /// [`Unsaved`]; then nothing has happened.
    pub async fn commit(self) -> std::result::Result<(), Unsaved> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let changes = self.staged.into_values().filter_map(change).collect();
        match self.keys.commit(changes).await {
            Ok(()) => Ok(()),
            Err(CommitError::Outdated) => Err(Unsaved::Repeat),
            Err(CommitError::NameTaken) => Err(Unsaved::Failed(name_taken())),
            Err(CommitError::Failed(error)) => Err(Unsaved::Failed(failure(&error))),
        }
    }

    fn stage(&mut self, found: Found) -> Result<()> {
        found.object.check_size()?;
        self.staged.insert(found.object.id, found);
        if self.staged.len() > MOST {
            return Err(Failure::new(ResultReason::InvalidMessage, format!("a batch with Undo may change at most {MOST} objects")));
        }
        Ok(())
    }
}

/// Item Not Found.
pub fn not_found(id: &str) -> Failure {
    Failure::new(ResultReason::ItemNotFound, format!("there is no object {id}"))
}

/// Section 3.2: a name is unique.
pub fn name_taken() -> Failure {
    Failure::new(ResultReason::InvalidField, "another object of the SVM has this name")
}

fn change(found: Found) -> Option<Change> {
    let attributes = found.object.encode();
    let names: HashSet<String> = found.object.names().map(str::to_owned).collect();
    match found.source {
        // Made and destroyed by the same unit: nobody ever sees it.
        Source::New(_) if found.destroyed => None,
        Source::New(secret) => {
            debug_assert!(secret.is_some() || found.object.object_type() == ObjectType::Template);
            Some(Change::Create { id: found.object.id, secret, attributes, names: names.into_iter().collect() })
        }
        Source::Stored(base) => {
            let before: HashSet<String> =
                Managed::decode(base.id, base.attributes()).map(|before| before.names().map(str::to_owned).collect()).unwrap_or_default();
            Some(match (found.destroyed, base.destroyed) {
                (true, false) => Change::Destroy { base, attributes, given_up: before.into_iter().collect() },
                // A destroyed object keeps its names as attributes, but others may take them.
                (_, true) => Change::Update { base, attributes, taken: Vec::new(), given_up: Vec::new() },
                (false, false) => Change::Update {
                    base,
                    attributes,
                    taken: names.difference(&before).cloned().collect(),
                    given_up: before.difference(&names).cloned().collect(),
                },
            })
        }
    }
}
