//! Things that are made once, by whoever needs them first.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, OnceLock},
};

pub(crate) struct Once<K, V>(Mutex<HashMap<K, Arc<OnceLock<V>>>>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Once<K, V> {
    /// Who comes while it is being made waits; different keys do not wait for each other.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let place = self.0.lock().unwrap().entry(key).or_default().clone();
        place.get_or_init(make).clone()
    }
}
