//! One limit for an operation with all its attempts, for callers whose promise counts the time that AWS takes.

use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// The pause before a further attempt and the least time that it should have: with less than that left, the failure of the last attempt is the better answer.
const WORTH_IT: Duration = Duration::from_millis(750);

tokio::task_local! {
    static BUDGET: Budget;
}

struct Budget {
    deadline: Instant,
    /// The first attempt has had its turn already.
    turn: Cell<bool>,
}

/// Runs an operation whose attempts must all have ended `limit` from now, and whose first attempt has had its turn under the rate limit.
pub(crate) async fn within<T>(limit: Duration, operation: impl Future<Output = T>) -> T {
    BUDGET.scope(Budget { deadline: Instant::now() + limit, turn: Cell::new(true) }, operation).await
}

/// Whether this attempt has had its turn already. Only the first one of an operation has.
pub(crate) fn take_turn() -> bool {
    BUDGET.try_with(|budget| budget.turn.replace(false)).unwrap_or(false)
}

/// What is left for the operation; `None` without a limit of this kind.
pub(crate) fn left() -> Option<Duration> {
    BUDGET.try_with(|budget| budget.deadline.saturating_duration_since(Instant::now())).ok()
}

/// Whether another attempt can still come to an end.
pub(crate) fn is_worth_it() -> bool {
    left().is_none_or(|left| left >= WORTH_IT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_limit_and_one_turn() {
        assert!(!take_turn() && left().is_none() && is_worth_it());
        within(Duration::from_secs(1), async {
            assert!(take_turn() && !take_turn() && is_worth_it());
            tokio::time::advance(Duration::from_millis(400)).await;
            assert!(left() == Some(Duration::from_millis(600)) && !is_worth_it());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(left(), Some(Duration::ZERO));
        })
        .await;
    }
}
