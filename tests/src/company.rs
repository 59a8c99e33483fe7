//! Tests of one program that run side by side, and those that have it for themselves.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static COMPANY: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held, not read")]
enum Held {
    Others(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// While others of these run, and none that is alone.
pub fn beside_others<T>(test: impl FnOnce() -> T) -> T {
    let others = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
    run(Held::Others(others), test)
}

/// While no other runs.
pub fn alone<T>(test: impl FnOnce() -> T) -> T {
    let alone = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
    run(Held::Alone(alone), test)
}

/// What is left of this test disturbs nobody and is disturbed by nobody: the next one may begin.
pub fn leave() {
    HELD.take();
}

fn run<T>(held: Held, test: impl FnOnce() -> T) -> T {
    /// Also when the test panics.
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            leave();
        }
    }
    HELD.set(Some(held));
    let _leave = Leave;
    test()
}
