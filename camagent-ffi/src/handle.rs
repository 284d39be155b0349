//! Handles: checked numbers in the shape of a pointer.
//!
//! A handle is a slot and a generation in one static table and is never followed as an address, so NULL, stopped and foreign handles are an
//! error code instead of a crash. The table, the last error of a thread and the panic hook are all that is global in this library.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use camagent_core::Agent;

use crate::{
    event::EventTexts,
    result::{CAMAGENT_E_FORKED, CAMAGENT_E_HANDLE, CAMAGENT_E_STATE, Failure},
};

/// A running agent. Made by camagent_start(), ended by camagent_stop(). It is no address: it is looked up at every call, so that a wrong
/// one is an error code.
pub struct camagent_t(());

/// What a handle stands for.
pub(crate) struct Running {
    pub(crate) agent: Agent,
    /// The texts of the last event that was fetched.
    pub(crate) texts: Mutex<EventTexts>,
}

struct Slot {
    generation: u32,
    content: Content,
}

enum Content {
    Free,
    /// A start is under way.
    Taken,
    Running(Arc<Running>),
}

/// Agents of one process. Slots fit into eight bits, generations into the 24 bits above: a handle is a number below 2^32.
const MAX_AGENTS: usize = 64;
const GENERATIONS: u32 = (1 << 24) - 1;

/// Fixed, so that nothing is on the heap when the last agent has ended.
static TABLE: Mutex<[Slot; MAX_AGENTS]> =
    Mutex::new([const { Slot { generation: 0, content: Content::Free } }; MAX_AGENTS]);
/// The process whose agents are in the table; 0 when there are none.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// A slot for an agent that is being started; given back when it is dropped unused.
pub(crate) struct Reservation {
    slot: usize,
    generation: u32,
}

impl Reservation {
    pub(crate) fn new() -> Result<Self, Failure> {
        check_process()?;
        let mut table = lock();
        let free = table.iter().position(|slot| matches!(slot.content, Content::Free));
        let slot = free.ok_or_else(|| Failure::new(CAMAGENT_E_STATE, format!("{MAX_AGENTS} agents run already")))?;
        let generation = table[slot].generation % GENERATIONS + 1;
        table[slot] = Slot { generation, content: Content::Taken };
        OWNER.store(std::process::id(), Ordering::Relaxed);
        Ok(Self { slot, generation })
    }

    pub(crate) fn handle(&self) -> *mut camagent_t {
        let number = (self.generation as usize) << 8 | self.slot;
        std::ptr::without_provenance_mut(number)
    }

    pub(crate) fn fill(self, running: Running) -> *mut camagent_t {
        lock()[self.slot].content = Content::Running(Arc::new(running));
        let handle = self.handle();
        std::mem::forget(self);
        handle
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut table = lock();
        table[self.slot].content = Content::Free;
        disown(&table);
    }
}

/// The agent behind a handle.
pub(crate) fn find(handle: *const camagent_t) -> Result<Arc<Running>, Failure> {
    check_process()?;
    let (slot, generation) = parts(handle);
    match lock().get(slot) {
        Some(Slot { generation: of_slot, content: Content::Running(running) }) if *of_slot == generation => {
            Ok(Arc::clone(running))
        }
        _ => {
            Err(Failure::new(CAMAGENT_E_HANDLE, "not a handle of a running agent: NULL, stopped already, or never one"))
        }
    }
}

/// Ends a handle; what it stood for lives until the last call on it has returned.
pub(crate) fn end(handle: *const camagent_t) {
    let (slot, generation) = parts(handle);
    let mut table = lock();
    if let Some(slot) = table.get_mut(slot).filter(|slot| slot.generation == generation) {
        let content = std::mem::replace(&mut slot.content, Content::Free);
        disown(&table);
        drop(table);
        drop(content);
    }
}

/// A process without agents may fork children that have some.
fn disown(table: &[Slot; MAX_AGENTS]) {
    if table.iter().all(|slot| matches!(slot.content, Content::Free)) {
        OWNER.store(0, Ordering::Relaxed);
    }
}

fn parts(handle: *const camagent_t) -> (usize, u32) {
    let number = handle.addr();
    (number & 0xff, u32::try_from(number >> 8).unwrap_or(0))
}

fn check_process() -> Result<(), Failure> {
    let owner = OWNER.load(Ordering::Relaxed);
    if owner == 0 || owner == std::process::id() {
        return Ok(());
    }
    let text = "the agent's thread stayed in the parent process: start agents after fork(), or after exec()";
    Err(Failure::new(CAMAGENT_E_FORKED, text))
}

fn lock() -> MutexGuard<'static, [Slot; MAX_AGENTS]> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
