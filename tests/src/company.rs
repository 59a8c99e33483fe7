//! Tests of one program that run side by side, and those that have it for themselves.

use std::sync::{PoisonError, RwLock};

static COMPANY: RwLock<()> = RwLock::new(());

/// While others of these run, and none that is alone.
pub fn beside_others<T>(test: impl FnOnce() -> T) -> T {
    let _others = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
    test()
}

/// While no other runs.
pub fn alone<T>(test: impl FnOnce() -> T) -> T {
    let _alone = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
    test()
}
