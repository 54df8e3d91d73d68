//! How far the audit log tells of the time since a backup: whether there is one of each node, from when on, and without gaps.

use super::Inventory;
use crate::records::NodeRecord;
use jiff::Timestamp;
use keystead_audit::{DAMAGED, LOST, Record as Audited};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use uuid::Uuid;

/// What was read of the logs.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    nodes: BTreeMap<Uuid, NodeLog>,
    /// Records of after the backup, each by a number: a node's folder and a collector have the same ones.
    seen: HashSet<u64>,
}

#[derive(Debug, Default)]
struct NodeLog {
    name: String,
    /// Records without a gap between them, by the index of the first.
    runs: BTreeMap<u64, Run>,
    /// How many records the log itself says to have lost since the backup.
    lost: u64,
    /// What the log itself says of damage since the backup.
    damaged: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    last: u64,
    /// When its first record was made.
    begun: Timestamp,
}

impl Coverage {
    /// Notes a record, whenever it was made.
    pub fn saw(&mut self, record: &Audited) {
        let node = self.nodes.entry(record.node.uuid).or_default();
        node.name.clone_from(&record.node.name);
        node.saw(record.index, record.time);
    }

    /// Notes one of after the backup. `false`: it was read before.
    pub fn is_new(&mut self, record: &Audited) -> bool {
        let mut number = DefaultHasher::new();
        // The index alone does not do: a log that was thrown away begins at 1 again.
        (record.node.uuid, record.index, record.time, record.state.text(), &record.input, record.object, &record.prev).hash(&mut number);
        self.seen.insert(number.finish())
    }

    /// Notes what a node's log says of itself.
    pub fn says(&mut self, record: &Audited) {
        let node = self.nodes.entry(record.node.uuid).or_default();
        match record.input.as_str() {
            LOST => node.lost = node.lost.saturating_add(record.count.unwrap_or(1)),
            DAMAGED => node.damaged = Some(record.message.clone().unwrap_or_default()),
            _ => {}
        }
    }

    /// How many records of after the backup there are.
    pub fn records(&self) -> usize {
        self.seen.len()
    }

    /// Why what the logs do not have may have happened all the same. `made` is the moment of the backup, and what begins before `from` does not count.
    pub fn doubts(&self, inventory: &Inventory, made: Timestamp, from: Timestamp) -> Vec<String> {
        let mut doubts = Vec::new();
        for node in inventory.all::<NodeRecord>().flatten().map(|node| node.record).filter(|node| !self.nodes.contains_key(&node.uuid)) {
            doubts.push(format!("there is no audit log of the node {} ({}), which the cluster had at the time of the backup", node.name, node.uuid));
        }
        for node in self.nodes.values() {
            node.doubts(made, from, &mut doubts);
        }
        doubts
    }
}

impl NodeLog {
    fn saw(&mut self, index: u64, time: Timestamp) {
        let before = self.runs.range(..=index).next_back().map(|(first, run)| (*first, *run));
        let behind = index.checked_add(1).and_then(|next| self.runs.get(&next).map(|run| (next, *run)));
        match (before, behind) {
            (Some((_, run)), _) if run.last >= index => {}
            (Some((first, run)), Some((next, after))) if run.last + 1 == index => {
                self.runs.remove(&next);
                self.runs.insert(first, Run { last: after.last, ..run });
            }
            (Some((first, run)), None) if run.last + 1 == index => {
                self.runs.insert(first, Run { last: index, ..run });
            }
            (_, Some((next, after))) => {
                self.runs.remove(&next);
                self.runs.insert(index, Run { last: after.last, begun: time });
            }
            (_, None) => {
                self.runs.insert(index, Run { last: index, begun: time });
            }
        }
    }

    fn doubts(&self, made: Timestamp, from: Timestamp, doubts: &mut Vec<String>) {
        let mut before: Option<u64> = None;
        for (first, run) in &self.runs {
            match before {
                // A log that begins with its very first record is that of a node which came later.
                None if run.begun > made && *first > 1 => doubts.push(format!(
                    "the audit log of the node {} begins at {:.0}, with record {first}, and so after the backup: what came before is not in it",
                    self.name, run.begun
                )),
                Some(before) if run.begun >= from => {
                    doubts.push(format!("records {} to {} are missing in the audit log of the node {}", before + 1, first - 1, self.name));
                }
                _ => {}
            }
            before = Some(run.last);
        }
        if self.lost > 0 {
            doubts.push(format!("the node {} could not keep {} audit records since the backup, as its log says", self.name, self.lost));
        }
        if let Some(damaged) = &self.damaged {
            doubts.push(format!("the audit log of the node {} was damaged since the backup, as it says: {damaged}", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(of: impl IntoIterator<Item = (u64, i64)>, made: i64) -> Vec<String> {
        let mut log = NodeLog { name: "n1".to_owned(), ..NodeLog::default() };
        let at = |second| Timestamp::from_second(second).unwrap();
        of.into_iter().for_each(|(index, second)| log.saw(index, at(second)));
        let mut doubts = Vec::new();
        log.doubts(at(made), at(made - 600), &mut doubts);
        doubts
    }

    #[test]
    fn a_log_covers_the_time_where_it_begins_before_the_backup_and_has_no_gap_since() {
        let whole = (5..=30).map(|index| (index, 1_000 + i64::try_from(index).unwrap()));
        for made in [1_005, 1_010, 2_000] {
            assert_eq!(doubts(whole.clone(), made), [""; 0]);
            assert_eq!(doubts(whole.clone().rev(), made), [""; 0], "in whichever order");
        }
        let odd = whole.clone().filter(|(index, _)| index % 2 == 1).chain(whole.clone().filter(|(index, _)| index % 2 == 0));
        assert_eq!(doubts(odd.chain(whole.clone()), 1_010), [""; 0], "and however often");
        assert!(doubts(whole.clone(), 1_004)[0].contains("begins at"));
        let late = (1..=3).map(|index| (index, 5_000));
        assert_eq!(doubts(late, 1_000), [""; 0], "the whole log of a node that came later");
        let gap = whole.clone().filter(|(index, _)| !(10..=12).contains(index));
        assert_eq!(doubts(gap.clone(), 1_011), ["records 10 to 12 are missing in the audit log of the node n1"]);
        assert_eq!(doubts(gap, 5_000), [""; 0], "long before the backup");
    }
}
