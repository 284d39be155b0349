//! Statistics.

use crate::{
    guard::{Sized32, guard, write},
    handle::{camagent_t, find},
    result::{CAMAGENT_OK, camagent_result},
};

/// How an agent fares. Counters begin at 0 with the agent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camagent_stats_t {
    /// Set it to sizeof(camagent_stats_t); tells how much was filled.
    pub struct_size: u32,
    /// 1 while a session is established, else 0.
    pub connected: u32,
    /// Bytes written to the server, TLS and WebSocket included.
    pub bytes_sent: u64,
    /// Bytes read from the server.
    pub bytes_received: u64,
    /// Frames that were kept and never reached the server; each was told to it.
    pub packets_lost: u64,
    /// How often a session was established again.
    pub reconnections: u64,
    /// Seconds since the start.
    pub uptime: u64,
    /// Bytes that the journal holds now.
    pub buffer_size: u64,
    /// Frames that were kept.
    pub frames_accepted: u64,
    /// Frames that were sent, repeats included.
    pub frames_sent: u64,
    /// Frames that were not kept: not wanted, waiting for a key frame, or refused.
    pub frames_dropped: u64,
    /// Last round trip in microseconds; 0 before the first.
    pub round_trip_us: u64,
    /// Bits a second that the uplink was seen to deliver at its best lately: no more than it was given. 0 without a session.
    pub uplink_bits_per_second: u64,
    /// Microseconds that the newest bytes waited in front of the uplink.
    pub uplink_queue_us: u64,
}

// SAFETY: repr(C), begins with a u32, and zeros are a value.
unsafe impl Sized32 for camagent_stats_t {
    const NAME: &'static str = "camagent_stats_t";
    const LEAST: usize = std::mem::offset_of!(camagent_stats_t, uplink_bits_per_second);
}

/// Fills in how the agent fares. Never waits.
///
/// @param agent  the agent
/// @param stats  is filled; set struct_size before
/// @return CAMAGENT_OK, CAMAGENT_E_INVAL, CAMAGENT_E_HANDLE, CAMAGENT_E_FORKED
///
/// # Safety
/// `stats` is NULL or as many writable bytes as its struct_size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_get_stats(agent: *mut camagent_t, stats: *mut camagent_stats_t) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        let numbers = running.agent.statistics();
        let filled = camagent_stats_t {
            struct_size: 0,
            connected: u32::from(running.agent.is_connected()),
            bytes_sent: numbers.bytes_sent,
            bytes_received: numbers.bytes_received,
            packets_lost: numbers.packets_lost,
            reconnections: numbers.reconnections,
            uptime: numbers.uptime,
            buffer_size: numbers.buffer_size,
            frames_accepted: numbers.frames_accepted,
            frames_sent: numbers.frames_sent,
            frames_dropped: numbers.frames_dropped,
            round_trip_us: numbers.round_trip_us,
            uplink_bits_per_second: numbers.uplink_bits_per_second,
            uplink_queue_us: numbers.uplink_queue_us,
        };
        // SAFETY: the caller vouches for `stats`.
        unsafe { write(stats, &filled, "stats") }?;
        Ok(CAMAGENT_OK)
    })
}
