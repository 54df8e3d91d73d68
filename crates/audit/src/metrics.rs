//! The metrics of the audit log.

use crate::Audit;
use keystead_metrics::{Name, Page, Source};
use std::sync::atomic::Ordering;

impl Source for Audit {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        let shared = &self.shared;
        let (status, newest) = (shared.status.borrow().clone(), *shared.written.borrow());
        page.counter(Name::plain("keystead_audit_records", "Records in the audit log of this node since it was made"), |samples| samples.put(&[], newest))?;
        page.counter(
            Name::plain("keystead_audit_lost_records", "Records that could not be kept: there was no room for them, or the disk did not answer"),
            |samples| samples.put(&[], shared.lost_ever.load(Ordering::Relaxed)),
        )?;
        page.gauge(Name::plain("keystead_audit_queue_records", "Records that wait to be written to the disk"), |samples| {
            samples.count(&[], shared.queue.waiting())
        })?;
        page.gauge(
            Name::plain("keystead_audit_writable", "Whether the audit log can be written: 1 or 0; where it cannot, what changes something is refused"),
            |samples| samples.flag(&[], status.unwritable.is_none() && shared.answers().is_ok()),
        )?;
        let collector = shared.collector.get();
        page.gauge(Name::plain("keystead_audit_collector_up", "Whether the syslog collector takes records: 1 or 0; absent without a collector"), |samples| {
            if collector.is_some() { samples.flag(&[], status.collector_away.is_none()) } else { Ok(()) }
        })?;
        page.gauge(
            Name::plain("keystead_audit_forward_backlog_records", "Records that the syslog collector has not acknowledged yet; absent without a collector"),
            |samples| match collector {
                Some(delivered) => samples.count(&[], usize::try_from(newest.saturating_sub(delivered.load(Ordering::Relaxed))).unwrap_or(usize::MAX)),
                None => Ok(()),
            },
        )
    }
}
