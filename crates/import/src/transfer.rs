//! One object, from there to here, and the proof that it has arrived.

use crate::gather::{Gathered, gather, type_name};
use crate::identity::{MARK_ID, MARK_SOURCE, here};
use crate::list::write_attributes;
use crate::peer::{Answer, Peer, Trouble};
use crate::report::{At, Entry, Note, Outcome, Reason, short};
use crate::{Abort, Options};
use aws_lc_rs::digest::{SHA256, digest};
use keystead_kmip::attribute::{Attribute, Identity, reference_to_node};
use keystead_kmip::enumeration::{Enumeration as _, HashingAlgorithm, ObjectType, Operation, ResultReason, State};
use keystead_kmip::fields::{enumeration, text};
use keystead_kmip::object::{KeyBlock, KeyValue, Object};
use keystead_kmip::ttlv::{Node, Value, encoded_length};
use keystead_kmip::{Tag, Version};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

/// After how many objects in a row that one of the servers could not cope with the run ends: then it is not the objects.
const MOST_STRIKES: u32 = 10;
/// How many names the report has of an object.
const NAMES_SHOWN: usize = 32;

/// Moves objects, one after the other.
pub struct Mover<'o> {
    source: Peer,
    destination: Peer,
    options: &'o Options,
    strikes: u32,
}

/// What came of an object, beside what the source says of it.
type Came = Result<Result<(Outcome, Vec<Note>), Reason>, Abort>;

/// What is here under an identifier.
struct Present {
    /// Whether it is marked as this very object.
    is_marked: bool,
    is_destroyed: bool,
    object_type: Option<u32>,
    /// SHA-256 of what is kept.
    digest: Option<Vec<u8>>,
}

/// An object as it came: type, and what is kept of it.
struct Secret {
    object_type: ObjectType,
    bytes: Zeroizing<Vec<u8>>,
}

impl<'o> Mover<'o> {
    /// Between two servers that have agreed on their versions.
    pub fn new(source: Peer, destination: Peer, options: &'o Options) -> Self {
        Self { source, destination, options, strikes: 0 }
    }

    /// Moves an object, or says why not.
    ///
    /// # Errors
    /// Why the objects that follow could not be moved either.
    pub fn transfer(&mut self, id: String) -> Result<Entry, Abort> {
        let target = here(&self.options.source_name, &id);
        let mut gathered = Gathered::default();
        let before = self.strikes;
        let came = self.attempt(&id, target, &mut gathered)?;
        if self.strikes == before {
            self.strikes = 0;
        } else if self.strikes >= MOST_STRIKES {
            let last = came.err().map(|reason| reason.message).unwrap_or_default();
            return Err(Abort(format!(
                "{MOST_STRIKES} objects in a row could not be looked at, the last with: {last}; look at the servers, then run it again"
            )));
        }
        let (outcome, notes, reason) = match came {
            Ok((outcome, notes)) => (outcome, notes, None),
            Err(reason) => (Outcome::NotMoved, Vec::new(), Some(reason)),
        };
        // Notes are about what has come.
        let notes = if reason.is_none() { gathered.notes.iter().cloned().chain(notes).collect() } else { Vec::new() };
        Ok(Entry {
            source_id: id,
            destination_id: target.to_string(),
            object_type: gathered.type_name(),
            names: gathered.names.iter().take(NAMES_SHOWN).map(|name| short(name)).collect(),
            state: gathered.state.map(|state| state.name().to_owned()),
            outcome,
            reason,
            notes,
        })
    }

    fn attempt(&mut self, id: &str, target: Uuid, gathered: &mut Gathered) -> Came {
        let version = self.source.version;
        let asked = self.source.ask(Operation::GetAttributes, 64 + id.len(), |out| out.text(Tag::UniqueIdentifier, id));
        *gathered = match asked.and_then(|answer| answer.read(|payload| gather(payload, version, &self.options.source_name, id))) {
            Ok(gathered) => gathered,
            Err(trouble) => return self.source_trouble(trouble).map(Err),
        };
        if matches!(gathered.state, Some(State::Destroyed | State::DestroyedCompromised)) {
            return Ok(Err(Reason::own("Destroyed", "it is destroyed at the source", "nothing: there is no key any more that could be moved")));
        }
        let got = self.source.ask(Operation::Get, 64 + id.len(), |out| out.text(Tag::UniqueIdentifier, id));
        let answer = match got {
            Ok(answer) => answer,
            Err(trouble) => return self.source_trouble(trouble).map(Err),
        };
        let secret =
            match answer.read(|payload| secret_of(payload, Some(id), version)).map_err(|trouble| Reason::own("Unreadable", trouble.to_string(), UNREADABLE)) {
                Ok(Ok(secret)) => secret,
                Ok(Err(reason)) | Err(reason) => return Ok(Err(reason)),
            };
        gathered.object_type = Some(secret.object_type.number());
        match self.look(target)? {
            Some(present) => self.compare(&present, target, &secret).map(|came| came.map(|notes| (Outcome::AlreadyThere, notes))),
            None if self.options.dry_run => self.rehearse(gathered),
            None => self.import(target, gathered, &answer, &secret),
        }
    }

    /// Makes the object here. Import does all of it in one step, or nothing: the object, its identifier, mark, state and dates.
    fn import(&mut self, target: Uuid, gathered: &mut Gathered, answer: &Answer, secret: &Secret) -> Came {
        loop {
            let trouble = match self.ask_import(target, gathered, answer, secret.object_type) {
                Ok(_) => break,
                Err(trouble) => trouble,
            };
            match trouble.reason() {
                // An answer that was lost, or another run beside this one.
                Some(ResultReason::ObjectAlreadyExists) => {
                    let Some(present) = self.look(target)? else { return self.destination_trouble(trouble).map(Err) };
                    return self.compare(&present, target, secret).map(|came| came.map(|notes| (Outcome::Moved, notes)));
                }
                Some(ResultReason::InvalidField | ResultReason::NonUniqueNameAttribute) => {
                    let taken = self.taken_names(gathered)?;
                    let Some((name, owner)) = taken.first() else { return self.destination_trouble(trouble).map(Err) };
                    if !self.options.drop_taken_names {
                        return Ok(Err(name_taken(name, owner)));
                    }
                    taken.iter().for_each(|(name, _)| gathered.drop_name(name));
                }
                _ => return self.destination_trouble(trouble).map(Err),
            }
        }
        let present = Present { is_marked: true, is_destroyed: false, object_type: Some(secret.object_type.number()), digest: None };
        self.compare(&present, target, secret).map(|came| came.map(|notes| (Outcome::Moved, notes)))
    }

    fn ask_import(&mut self, target: Uuid, gathered: &Gathered, answer: &Answer, object_type: ObjectType) -> Result<Answer, Trouble> {
        let (source_version, version) = (self.source.version, self.destination.version);
        let bytes: usize = gathered.attributes.iter().map(|attribute| encoded_length(&attribute.to_node_at(version))).sum();
        answer.read(|payload| {
            let object = Object::tag(object_type, source_version).and_then(|tag| payload.find(tag)).map(|node| Object::from_node(node, source_version));
            let Some(Ok(object)) = object else { return Err(Trouble::Unreadable("the object cannot be read".to_owned())) };
            self.destination.ask(Operation::Import, 256 + bytes + answer.len(), |out| {
                out.text(Tag::UniqueIdentifier, &target.to_string());
                out.enumeration(Tag::ObjectType, object_type);
                write_attributes(&gathered.attributes, version, out);
                object.write(version, out);
            })
        })?
    }

    /// What a dry run can say of an object that is not here yet.
    fn rehearse(&mut self, gathered: &mut Gathered) -> Came {
        let taken = self.taken_names(gathered)?;
        match taken.first() {
            Some((name, owner)) if !self.options.drop_taken_names => Ok(Err(name_taken(name, owner))),
            _ => {
                taken.iter().for_each(|(name, _)| gathered.drop_name(name));
                Ok(Ok((Outcome::WouldMove, Vec::new())))
            }
        }
    }

    /// Whether what is here is the object: the same type, the same bytes. Of what the destination does not give out, it tells the digest.
    fn compare(&mut self, present: &Present, target: Uuid, secret: &Secret) -> Result<Result<Vec<Note>, Reason>, Abort> {
        if present.is_destroyed {
            let message = "an object with its identifier was here, and has been destroyed";
            return Ok(Err(Reason::own("DestroyedHere", message, "nothing, if that was meant: an identifier is not used again")));
        }
        let id = target.to_string();
        let version = self.destination.version;
        let got = self.destination.ask(Operation::Get, 128, |out| out.text(Tag::UniqueIdentifier, &id));
        let same = match got {
            Ok(answer) => match answer.read(|payload| secret_of(payload, None, version)) {
                Ok(Ok(here)) => here.object_type == secret.object_type && bool::from(here.bytes.ct_eq(&secret.bytes)),
                Ok(Err(_)) | Err(_) => false,
            },
            Err(trouble) if matches!(trouble.reason(), Some(ResultReason::Sensitive | ResultReason::NotExtractable)) => {
                let again = self.look(target)?;
                let known = again.as_ref().and_then(|present| present.digest.as_deref());
                let type_here = again.as_ref().and_then(|present| present.object_type);
                type_here == Some(secret.object_type.number()) && known.is_some_and(|known| known == digest(&SHA256, &secret.bytes).as_ref())
            }
            Err(trouble) => return self.destination_trouble(trouble).map(Err),
        };
        match (same, present.is_marked) {
            (true, true) => Ok(Ok(Vec::new())),
            (true, false) => {
                let message = "it was here already, and not from an import of this source: its attributes were left as they are";
                Ok(Ok(vec![Note { attribute: None, message: message.to_owned() }]))
            }
            (false, true) => {
                let message = "what is here under its identifier, with its mark, is not what the source gives";
                let advice =
                    "find out which of the two is right; if it is that of the source, destroy the one here and register the other under a new identifier";
                Ok(Err(Reason::own("Differs", message, advice)))
            }
            (false, false) => {
                let advice = "register it under a new identifier, and tell its clients";
                Ok(Err(Reason::own("IdentifierTaken", "another object has its identifier here", advice)))
            }
        }
    }

    /// What is here under an identifier.
    fn look(&mut self, target: Uuid) -> Result<Option<Present>, Abort> {
        let version = self.destination.version;
        let custom = |name: &'static str| Identity::Custom(name.into());
        let known = [Tag::ObjectType, Tag::State, Tag::DestroyDate, Tag::Digest].map(Identity::Known);
        let wanted: Vec<Identity<'_>> = known.into_iter().chain([custom(MARK_SOURCE), custom(MARK_ID)]).collect();
        let id = target.to_string();
        let asked = self.destination.ask(Operation::GetAttributes, 1_024, |out| {
            out.text(Tag::UniqueIdentifier, &id);
            for identity in &wanted {
                match version < Version::V2_0 {
                    true => out.text(Tag::AttributeName, identity.name()),
                    false => out.node(&reference_to_node(identity)),
                }
            }
        });
        let found = asked.and_then(|answer| {
            answer.read(|payload| match version < Version::V2_0 {
                true => payload.items().iter().filter(|item| item.tag == Tag::Attribute).filter_map(|node| Attribute::from_node(node, version).ok()).collect(),
                false => payload.find(Tag::Attributes).and_then(|node| Attribute::all_from_node(node, version).ok()).unwrap_or_default(),
            })
        });
        let attributes: Vec<Attribute<'static>> = match found {
            Ok(attributes) => attributes,
            Err(trouble) if matches!(trouble.reason(), Some(ResultReason::ItemNotFound | ResultReason::ObjectNotFound)) => return Ok(None),
            Err(trouble) => return Err(Abort(format!("the destination does not say whether there is an object {id}: {trouble}"))),
        };
        Ok(Some(self.present(&attributes, target)))
    }

    fn present(&self, attributes: &[Attribute<'_>], target: Uuid) -> Present {
        let value = |tag| attributes.iter().find(|attribute| attribute.identity == Identity::Known(tag)).map(|attribute| &attribute.value);
        let mark = |name: &str| {
            attributes.iter().find(|attribute| attribute.identity.name() == name).and_then(|attribute| match &attribute.value {
                Value::TextString(text) => Some(text.as_ref()),
                _ => None,
            })
        };
        let named = mark(MARK_SOURCE) == Some(self.options.source_name.as_str());
        Present {
            // The identifier was made of the source's, so that the mark needs to be looked at for its kind alone.
            is_marked: named && mark(MARK_ID).is_some_and(|id| here(&self.options.source_name, id) == target),
            is_destroyed: value(Tag::DestroyDate).is_some(),
            object_type: if let Some(Value::Enumeration(kind)) = value(Tag::ObjectType) { Some(*kind) } else { None },
            digest: value(Tag::Digest).and_then(sha256),
        }
    }

    /// Those of the names that others have here, with whose they are.
    fn taken_names(&mut self, gathered: &Gathered) -> Result<Vec<(String, String)>, Abort> {
        let version = self.destination.version;
        let mut taken = Vec::new();
        for name in &gathered.names {
            let wanted = [Attribute::name(name.as_str())];
            let asked = self.destination.ask(Operation::Locate, 256 + name.len(), |out| write_attributes(&wanted, version, out));
            let owner = asked.and_then(|answer| answer.read(|payload| payload.find(Tag::UniqueIdentifier).and_then(|id| text(id).ok()).map(str::to_owned)));
            match owner {
                Ok(owner) => taken.extend(owner.map(|owner| (name.clone(), owner))),
                Err(trouble) => return Err(Abort(format!("the destination does not say who has the name {name:?}: {trouble}"))),
            }
        }
        Ok(taken)
    }

    /// Why the source does not give an object; or why it will give none any more.
    fn source_trouble(&mut self, trouble: Trouble) -> Result<Reason, Abort> {
        let (code, message, advice) = match trouble {
            Trouble::Refused(refusal) => {
                let message = if refusal.message.is_empty() { "the source refuses it".to_owned() } else { short(&refusal.message) };
                return Ok(Reason { at: At::Source, advice: advice_of_source(refusal.known()).to_owned(), code: refusal.name(), message });
            }
            Trouble::Unreadable(why) => ("Unreadable", why, UNREADABLE),
            Trouble::Lost(why) if self.source.is_there() => ("NoAnswer", why, "the source does not answer for this object alone: look into its log"),
            Trouble::Lost(why) => return Err(Abort(format!("the source is not there any more: {why}; when it is back, run the import again: it goes on"))),
        };
        self.strikes += 1;
        Ok(Reason { at: At::Source, code: code.to_owned(), message: short(&message), advice: advice.to_owned() })
    }

    /// Why the destination does not take an object; or why it will take none any more.
    fn destination_trouble(&mut self, trouble: Trouble) -> Result<Reason, Abort> {
        let (code, message, advice) = match trouble {
            Trouble::Refused(refusal) if refusal.known() == Some(ResultReason::PermissionDenied) => {
                let advice = "see the SVM's key manager (GET /api/security/key-managers, and /api/security/aws-kms with fields=state), then run the import again: it goes on";
                return Err(Abort(format!("the SVM takes no keys: {}; {advice}", short(&refusal.message))));
            }
            Trouble::Refused(refusal) => {
                if refusal.known() == Some(ResultReason::GeneralFailure) {
                    self.strikes += 1;
                }
                let advice = advice_of_destination(refusal.known(), &refusal.message).to_owned();
                return Ok(Reason { at: At::Destination, advice, code: refusal.name(), message: short(&refusal.message) });
            }
            Trouble::Lost(why) | Trouble::Unreadable(why) if self.destination.is_there() => {
                ("NoAnswer", why, "the destination does not answer for this object alone: it may be larger than [ekmip] max_message_size; look into its log")
            }
            Trouble::Lost(why) | Trouble::Unreadable(why) => {
                return Err(Abort(format!("the destination is not there any more: {why}; when it is back, run the import again: it goes on")));
            }
        };
        self.strikes += 1;
        Ok(Reason { at: At::Destination, code: code.to_owned(), message: short(&message), advice: advice.to_owned() })
    }
}

const UNREADABLE: &str = "the source's answer is not as the specification has it: another version (--source-version) may help";

/// Type and bytes of the object in the payload of a Get.
fn secret_of(payload: &Node<'_>, id: Option<&str>, version: Version) -> Result<Secret, Reason> {
    let unreadable = |message: String| Reason { at: At::Source, ..Reason::own("Unreadable", message, UNREADABLE) };
    if id.is_some_and(|id| payload.find(Tag::UniqueIdentifier).and_then(|node| text(node).ok()).is_some_and(|given| given != id)) {
        return Err(unreadable("the source has answered with another object".to_owned()));
    }
    let number = match payload.find(Tag::ObjectType).map(|node| &node.value) {
        Some(Value::Enumeration(number)) => *number,
        _ => return Err(unreadable("the answer does not say of which type the object is".to_owned())),
    };
    let tag = ObjectType::from_number(number).filter(|kind| *kind != ObjectType::Template).and_then(|kind| Object::tag(kind, version));
    let Some(tag) = tag else {
        let message = format!("objects of the type {} are not kept by Keystead", type_name(number));
        return Err(Reason::own("ObjectTypeNotSupported", message, "move what is in it by hand; of a Template, nothing but attributes is"));
    };
    let node = payload.find(tag).ok_or_else(|| unreadable(format!("there is no {tag} in the answer")))?;
    let object = Object::from_node(node, version).map_err(|failure| match node.find(Tag::KeyBlock).and_then(|block| block.find(Tag::KeyWrappingData)) {
        Some(_) => Reason::own("Wrapped", "the source gives it wrapped by another key only", "unwrap it, and register it"),
        None => Reason::own("NotSupported", failure.message, "register it by hand in a form that Keystead takes"),
    })?;
    let key = |block: &KeyBlock<'_>| match &block.value {
        KeyValue::Plain(material) => Zeroizing::new(material.stored().into_owned()),
        KeyValue::Wrapped(..) => Zeroizing::default(),
    };
    let bytes = match &object {
        Object::Certificate(_, bytes) | Object::OpaqueObject(_, bytes) => Zeroizing::new(bytes.to_vec()),
        Object::SymmetricKey(block) | Object::PublicKey(block) | Object::PrivateKey(block) | Object::SecretData(_, block) => key(block),
        Object::Template(_) => Zeroizing::default(),
    };
    Ok(Secret { object_type: object.object_type(), bytes })
}

/// The value of a Digest by SHA-256.
fn sha256(value: &Value<'_>) -> Option<Vec<u8>> {
    let Value::Structure(items) = value else { return None };
    let find = |tag| items.iter().find(|item| item.tag == tag);
    let algorithm: HashingAlgorithm = find(Tag::HashingAlgorithm).and_then(|node| enumeration(node).ok())?;
    match find(Tag::DigestValue).map(|node| &node.value) {
        Some(Value::ByteString(digest)) if algorithm == HashingAlgorithm::SHA_256 => Some(digest.to_vec()),
        _ => None,
    }
}

fn name_taken(name: &str, owner: &str) -> Reason {
    let advice = "rename one of the two, or run the import again with --drop-taken-names; then it comes without that name";
    Reason::own("NameTaken", format!("the object {owner} has its name {:?} here", short(name)), advice)
}

fn advice_of_source(reason: Option<ResultReason>) -> &'static str {
    use ResultReason as R;
    match reason {
        Some(R::Sensitive | R::NotExtractable) => {
            "the source does not give it out in the clear: what it protects has to be encrypted anew, under a key that is made here"
        }
        Some(R::PermissionDenied | R::NotAuthorised | R::AuthenticationNotSuccessful) => {
            "the source does not let this client have it: run the import with the certificate of its owner, or have its policy changed"
        }
        Some(R::ItemNotFound | R::ObjectNotFound | R::ObjectDestroyed) => "it went away while the import ran; if it should be there, run the import again",
        Some(R::ObjectArchived) => "recover it at the source, then run the import again",
        Some(R::OperationNotSupported) => "the source lacks an operation that the import needs at this version: another one (--source-version) may help",
        _ => "look into the source's log",
    }
}

fn advice_of_destination(reason: Option<ResultReason>, message: &str) -> &'static str {
    use ResultReason as R;
    match reason {
        Some(R::FeatureNotSupported) if message.starts_with("FIPS mode") => {
            "FIPS mode lets no such key in: make a new one of another algorithm, or move it to a cluster without FIPS mode"
        }
        Some(R::FeatureNotSupported | R::KeyFormatTypeNotSupported | R::InvalidObjectType) => "register it by hand in a form that Keystead takes",
        Some(R::GeneralFailure) => "look into the log of the node, then run the import again: it goes on",
        _ => "put right at the source what the message names, then run the import again; or register it by hand",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u32, object: Node<'static>) -> Node<'static> {
        Node::structure(Tag::ResponsePayload, vec![Node::new(Tag::ObjectType, Value::Enumeration(kind)), Node::text(Tag::UniqueIdentifier, "1"), object])
    }

    fn key(more: Vec<Node<'static>>) -> Node<'static> {
        let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, vec![7; 16])]);
        let block = [vec![Node::new(Tag::KeyFormatType, Value::Enumeration(1)), value], more].concat();
        Node::structure(Tag::SymmetricKey, vec![Node::structure(Tag::KeyBlock, block)])
    }

    fn code(payload: &Node<'_>) -> String {
        secret_of(payload, Some("1"), Version::V1_2).err().map(|reason| reason.code).unwrap_or_default()
    }

    #[test]
    fn what_a_get_may_answer() {
        let Ok(secret) = secret_of(&answer(2, key(vec![])), Some("1"), Version::V1_2) else { panic!("a plain key is read") };
        assert_eq!((secret.object_type, secret.bytes.as_slice()), (ObjectType::SymmetricKey, [7; 16].as_slice()));
        let wrapped = vec![Node::structure(Tag::KeyWrappingData, vec![Node::new(Tag::WrappingMethod, Value::Enumeration(1))])];
        assert_eq!(code(&answer(2, key(wrapped))), "Wrapped");
        assert_eq!(code(&answer(2, key(vec![Node::new(Tag::KeyCompressionType, Value::Enumeration(1))]))), "NotSupported");
        for kind in [5, 6, 9, 77] {
            assert_eq!(code(&answer(kind, key(vec![]))), "ObjectTypeNotSupported", "{kind}");
        }
        assert_eq!(code(&answer(4, key(vec![]))), "Unreadable", "another type than it says");
        assert_eq!(code(&Node::structure(Tag::ResponsePayload, vec![])), "Unreadable");
        let other = secret_of(&answer(2, key(vec![])), Some("2"), Version::V1_2).err();
        assert!(other.is_some_and(|reason| reason.message.contains("another object")));
    }
}
