//! A unit of work: what an item of a batch, or a batch with Undo, reads and changes, committed together.
//!
//! An operation works on the unit alone. So undoing a batch is not committing it, and the same code serves both ways.

use crate::managed::Managed;
use crate::reason::failure;
use keystead_kmip::enumeration::{ObjectType, ResultReason};
use keystead_kmip::{Failure, Result, Tag, Version};
use keystead_manager::keys::{Change, CommitError, KeyObject, Keys};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How many records one unit may write, objects and names, and how many bytes: what fits in a transaction of the store.
const MOST_RECORDS: usize = 120;
const MOST_BYTES: usize = 1_200_000;

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
    /// How many names it has in the store.
    stored_names: usize,
}

/// An object to look at.
pub enum Seen<'u> {
    /// As the store has it.
    Stored(Arc<KeyObject>),
    /// As this unit has changed it.
    Staged(&'u Found),
}

/// Work that is not committed yet.
pub struct Unit<'k> {
    keys: &'k Keys,
    /// The version of the client: objects that it does not have do not exist for it.
    version: Version,
    staged: BTreeMap<Uuid, Found>,
}

/// Why a unit was not committed.
pub enum Unsaved {
    /// Something it had read has changed: do it again.
    Repeat,
    /// It cannot be.
    Failed(Failure),
}

impl Seen<'_> {
    /// Its attributes.
    ///
    /// # Errors
    /// General Failure where the record is damaged.
    pub fn object(&self) -> Result<Cow<'_, Managed<'_>>> {
        Ok(match self {
            Seen::Stored(stored) => Cow::Owned(Managed::decode(stored.id, stored.attributes())?),
            Seen::Staged(found) => Cow::Borrowed(&found.object),
        })
    }

    /// Its attributes under these tags alone: what a Get needs, without reading the rest.
    ///
    /// # Errors
    /// General Failure where the record is damaged.
    pub fn facts(&self, wanted: &[Tag]) -> Result<Cow<'_, Managed<'_>>> {
        Ok(match self {
            Seen::Stored(stored) => Cow::Owned(Managed::decode_some(stored.id, stored.attributes(), wanted)?),
            Seen::Staged(found) => Cow::Borrowed(&found.object),
        })
    }

    /// Whether its secret is gone.
    pub fn is_destroyed(&self) -> bool {
        match self {
            Seen::Stored(stored) => stored.destroyed,
            Seen::Staged(found) => found.destroyed,
        }
    }

    /// About how many bytes it has, attributes and secret.
    pub fn size(&self) -> usize {
        match self {
            Seen::Stored(stored) => stored.size(),
            Seen::Staged(found) => found.size(),
        }
    }
}

impl Found {
    /// Whether its secret is gone.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed
    }

    /// Whether its names are its own: those of a destroyed object are free for others.
    fn has_names(&self) -> bool {
        let was_destroyed = matches!(&self.source, Source::Stored(base) if base.destroyed);
        !self.destroyed && !was_destroyed
    }

    /// How many records a commit writes for it, and how many bytes.
    fn cost(&self) -> (usize, usize) {
        (2 + self.stored_names + self.object.names().count(), self.size())
    }

    /// About how many bytes it has: attributes as they are now, and the record that they came in or the secret.
    pub fn size(&self) -> usize {
        let source = match &self.source {
            Source::Stored(stored) => stored.size(),
            Source::New(secret) => secret.as_ref().map_or(0, |secret| secret.len()),
        };
        source + self.object.size()
    }
}

impl<'k> Unit<'k> {
    /// Work on the keys of an SVM, as a client of that version sees them.
    pub fn new(keys: &'k Keys, version: Version) -> Self {
        Self { keys, version, staged: BTreeMap::new() }
    }

    /// An object to look at, as this unit sees it: without a copy of it.
    ///
    /// # Errors
    /// As [`Unit::find`].
    pub async fn look(&self, id: Uuid) -> Result<Seen<'_>> {
        match self.staged.get(&id) {
            Some(staged) if !self.exists(&staged.object, staged.destroyed) => Err(not_found(&id.to_string())),
            Some(staged) => Ok(Seen::Staged(staged)),
            None => Ok(Seen::Stored(self.stored(id).await?)),
        }
    }

    /// Whether an object of the SVM has that identifier, whatever versions of the protocol show it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn is_taken(&self, id: Uuid) -> Result<bool> {
        Ok(self.staged.contains_key(&id) || self.keys.get(id).await.map_err(|error| failure(&error))?.is_some())
    }

    /// An object to change, as this unit sees it.
    ///
    /// # Errors
    /// Item Not Found, in the same words whether it does not exist or is another SVM's.
    pub async fn find(&self, id: Uuid) -> Result<Found> {
        if let Some(staged) = self.staged.get(&id) {
            if !self.exists(&staged.object, staged.destroyed) {
                return Err(not_found(&id.to_string()));
            }
            let Found { object, source, destroyed, stored_names } = staged;
            return Ok(Found { object: object.clone(), source: source.clone(), destroyed: *destroyed, stored_names: *stored_names });
        }
        let stored = self.stored(id).await?;
        let object = Managed::decode(id, stored.attributes())?.into_owned();
        let stored_names = object.names().count();
        Ok(Found { object, destroyed: stored.destroyed, source: Source::Stored(stored), stored_names })
    }

    /// All objects with a term, or all, as this unit sees them.
    ///
    /// # Errors
    /// General Failure where the store cannot be read.
    pub async fn search(&self, term: Option<u64>, mut visit: impl FnMut(&Managed<'_>, bool)) -> Result<()> {
        // A term can have as many objects as there are: a group of all keys.
        let many = self.keys.count(term).await.map_err(|error| failure(&error))? > AT_A_TIME;
        let _turn = if many { Some(self.keys.scan().await.map_err(|error| failure(&error))?) } else { None };
        for (number, stored) in self.keys.find(term).await.map_err(|error| failure(&error))?.into_iter().enumerate() {
            // A search through a million keys takes its time; others are served meanwhile.
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            if !self.staged.contains_key(&stored.id) {
                let object = Managed::decode(stored.id, stored.attributes())?;
                if self.exists(&object, stored.destroyed) {
                    visit(&object, stored.destroyed);
                }
            }
        }
        for staged in self.staged.values().filter(|staged| self.exists(&staged.object, staged.destroyed)) {
            visit(&staged.object, staged.destroyed);
        }
        Ok(())
    }

    /// The secret of an object; `None` where it has none.
    ///
    /// # Errors
    /// Permission Denied while the SVM is blocked.
    pub fn secret(&self, seen: &Seen<'_>) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let stored = match seen {
            Seen::Staged(Found { source: Source::New(secret), .. }) => {
                self.keys.usable().map_err(|error| failure(&error))?;
                return Ok(secret.as_deref().cloned());
            }
            Seen::Staged(Found { source: Source::Stored(stored), .. }) | Seen::Stored(stored) => stored,
        };
        self.keys.open(stored).map_err(|error| failure(&error))
    }

    async fn stored(&self, id: Uuid) -> Result<Arc<KeyObject>> {
        let stored = self.keys.get(id).await.map_err(|error| failure(&error))?.ok_or_else(|| not_found(&id.to_string()))?;
        // 1.x has all types of objects, so that only others need a look, and what is destroyed.
        if (self.version >= Version::V2_0 || stored.destroyed)
            && !self.exists(&Managed::decode_some(id, stored.attributes(), &[Tag::ObjectType])?, stored.destroyed)
        {
            return Err(not_found(&id.to_string()));
        }
        Ok(stored)
    }

    /// Whether the client may know of an object. A Template that is destroyed is gone with all that was said of it (1.4, section 4.21).
    fn exists(&self, object: &Managed<'_>, destroyed: bool) -> bool {
        object.exists_in(self.version) && !(destroyed && object.object_type() == ObjectType::Template)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// A Name that another object of this unit has; more changes than can be committed together.
    pub fn create(&mut self, object: Managed<'static>, secret: Option<Zeroizing<Vec<u8>>>) -> Result<()> {
        self.stage(Found { object, source: Source::New(secret.map(Arc::new)), destroyed: false, stored_names: 0 })
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
        let makes = self.staged.values().any(|found| matches!(found.source, Source::New(_)) && found.object.names().next().is_some());
        let changes = self.staged.into_values().filter_map(change).collect();
        match self.keys.commit(changes).await {
            Ok(()) => Ok(()),
            Err(CommitError::Outdated) => Err(Unsaved::Repeat),
            Err(CommitError::NameTaken) => Err(Unsaved::Failed(name_taken(makes))),
            Err(CommitError::Failed(error)) => Err(Unsaved::Failed(failure(&error))),
        }
    }

    fn stage(&mut self, found: Found) -> Result<()> {
        found.object.check_size()?;
        let others = || self.staged.values().filter(|other| other.object.id != found.object.id && other.has_names());
        if found.has_names() && found.object.names().any(|name| others().any(|other| other.object.names().any(|known| known == name))) {
            return Err(name_taken(matches!(found.source, Source::New(_))));
        }
        self.staged.insert(found.object.id, found);
        let (records, bytes) = self.staged.values().map(Found::cost).fold((0, 0), |(records, bytes), (more, longer)| (records + more, bytes + longer));
        if records > MOST_RECORDS || bytes > MOST_BYTES {
            let message = format!(
                "too much at a time: {records} records with {bytes} bytes, and at most {MOST_RECORDS} with {MOST_BYTES} go together; use smaller batches"
            );
            return Err(Failure::new(ResultReason::InvalidField, message));
        }
        Ok(())
    }
}

/// Item Not Found.
pub fn not_found(id: &str) -> Failure {
    Failure::new(ResultReason::ItemNotFound, format!("there is no object {id}"))
}

/// Object Destroyed; Item Not Found in 1.x.
pub fn destroyed(id: &str) -> Failure {
    not_found(id).since_2(ResultReason::ObjectDestroyed)
}

/// Section 3.2: a name is unique. The reason differs between making an object and changing one (sections 11.1 and 11.14).
pub fn name_taken(makes: bool) -> Failure {
    let reason = if makes { ResultReason::InvalidField } else { ResultReason::IllegalOperation };
    Failure::new(reason, "another object of the SVM has this name").since_2(ResultReason::NonUniqueNameAttribute)
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

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_kmip::ttlv::Value;

    #[test]
    fn what_is_staged_counts_as_large_as_it_is_now() {
        let mut object = Managed::new(Uuid::nil(), ObjectType::SymmetricKey);
        object.set(Tag::Description, Value::TextString("x".repeat(50_000).into()));
        let secret = Some(Arc::new(Zeroizing::new(vec![0; 32])));
        let found = Found { object, source: Source::New(secret), destroyed: false, stored_names: 0 };
        assert_eq!(found.size(), 32 + found.object.size());
        assert!(Seen::Staged(&found).size() > 50_000 && found.cost() == (2, found.size()));
    }
}
