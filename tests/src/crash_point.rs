//! Points at which a daemon can be made to crash, seen from outside: each call that changes
//! something has a stable name, is counted, and can be armed.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The call does not reach the server.
    Before,
    /// The server has acted; its answer does not reach the caller.
    After,
}

/// What happens at an armed point, usually the killing of a process.
type Act = Box<dyn FnOnce() + Send>;

/// A point that was reached: the server does its part, then calls `act` and cuts the connection.
pub(crate) struct Reached {
    pub(crate) when: When,
    pub(crate) act: Act,
}

struct Armed {
    name: String,
    /// 1 is the first occurrence after arming.
    nth: usize,
    when: When,
    act: Act,
}

#[derive(Default)]
struct Inner {
    names: Vec<String>,
    armed: Option<Armed>,
}

#[derive(Default)]
pub struct CrashPoints(Mutex<Inner>);

impl CrashPoints {
    /// Lets `act` happen at the `nth` (from 1) call named `name` from now on. One point at a time.
    pub fn arm(&self, name: &str, nth: usize, when: When, act: impl FnOnce() + Send + 'static) {
        self.lock().armed = Some(Armed {
            name: name.to_owned(),
            nth,
            when,
            act: Box::new(act),
        });
    }

    /// Whether an armed point has not been reached yet.
    pub fn is_armed(&self) -> bool {
        self.lock().armed.is_some()
    }

    /// All calls seen so far, in order.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.clone()
    }

    pub(crate) fn record(&self, name: &str) -> Option<Reached> {
        let mut inner = self.lock();
        inner.names.push(name.to_owned());
        let armed = inner.armed.as_mut().filter(|armed| armed.name == name)?;
        armed.nth = armed.nth.saturating_sub(1);
        if armed.nth > 0 {
            return None;
        }
        let Armed { when, act, .. } = inner.armed.take()?;
        Some(Reached { when, act })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_reached_once_at_the_nth_call_of_its_name() {
        let points = CrashPoints::default();
        points.arm("PATCH nodes", 2, When::After, || {});
        assert!(points.record("PATCH nodes").is_none());
        assert!(points.record("POST pods/eviction").is_none());
        assert_eq!(
            points.record("PATCH nodes").map(|reached| reached.when),
            Some(When::After)
        );
        assert!(points.record("PATCH nodes").is_none());
    }
}
