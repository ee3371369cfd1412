//! What tests hook into: a place after each step that a crash could follow.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn FnMut(&'static str) + Send>;

/// Called with the name of each step. Clones share one hook.
#[derive(Clone, Default)]
pub(in crate::stage::local) struct StepHook(Arc<Mutex<Option<Hook>>>);

impl StepHook {
    /// Calls `hook` from now on.
    pub(in crate::stage::local) fn set(&self, hook: impl FnMut(&'static str) + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Does `work` while no hook runs, so that a hook sees the directory at rest.
    pub(in crate::stage::local) fn apart_from<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// A step was done.
    pub(in crate::stage::local) fn reached(&self, step: &'static str) {
        let mut hook = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hook) = &mut *hook {
            hook(step);
        }
    }
}

impl fmt::Debug for StepHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepHook")
    }
}
