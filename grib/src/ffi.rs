//! The calls of ecCodes' C library: the only unsafe code of the workspace.
//!
//! A [`Handle`] owns one message inside the library. Builds of the library without locks exist,
//! and the definitions of keys that it reads are shared by all messages, so one lock is held during
//! each call. What the library would print goes into the error of the call instead.

use std::cell::RefCell;
use std::ffi::{CStr, OsString, c_char, c_double, c_int, c_long, c_void};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::Error;

/// Names the library, in the environment.
const NAMED: &str = "MLWM_ECCODES";
/// Where the library is looked for if it is not named: where the system finds libraries.
const NAMES: [&str; 2] = ["libeccodes.so.0", "libeccodes.so"];
/// The oldest version that is known to do, as the library writes it: 2.28.0.
const OLDEST: c_long = 22_800;

/// What the library says when it fails: its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type LogProcedure = extern "C" fn(*const c_void, c_int, *const c_char);

/// Declares the functions of the library as fields, and finds them by their names.
macro_rules! functions {
    ($(fn $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[derive(Debug)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            /// # Safety
            /// The library has these functions with these arguments, and is never unloaded.
            unsafe fn of(library: &libloading::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: as this function's.
                    $($name: unsafe { *library.get(stringify!($name))? },)*
                })
            }
        }
    };
}

functions! {
    fn codes_get_api_version() -> c_long;
    fn codes_handle_new_from_message_copy(*mut c_void, *const c_void, usize) -> *mut c_void;
    fn codes_handle_new_from_samples(*mut c_void, *const c_char) -> *mut c_void;
    fn codes_handle_clone(*const c_void) -> *mut c_void;
    fn codes_handle_delete(*mut c_void) -> c_int;
    fn codes_get_message(*const c_void, *mut *const c_void, *mut usize) -> c_int;
    fn codes_is_defined(*const c_void, *const c_char) -> c_int;
    fn codes_is_missing(*const c_void, *const c_char, *mut c_int) -> c_int;
    fn codes_get_size(*const c_void, *const c_char, *mut usize) -> c_int;
    fn codes_get_long(*const c_void, *const c_char, *mut c_long) -> c_int;
    fn codes_get_double(*const c_void, *const c_char, *mut c_double) -> c_int;
    fn codes_get_string(*const c_void, *const c_char, *mut c_char, *mut usize) -> c_int;
    fn codes_get_long_array(*const c_void, *const c_char, *mut c_long, *mut usize) -> c_int;
    fn codes_get_double_array(*const c_void, *const c_char, *mut c_double, *mut usize) -> c_int;
    fn codes_set_long(*mut c_void, *const c_char, c_long) -> c_int;
    fn codes_set_double(*mut c_void, *const c_char, c_double) -> c_int;
    fn codes_set_string(*mut c_void, *const c_char, *const c_char, *mut usize) -> c_int;
    fn codes_set_long_array(*mut c_void, *const c_char, *const c_long, usize) -> c_int;
    fn codes_set_double_array(*mut c_void, *const c_char, *const c_double, usize) -> c_int;
    fn codes_get_gaussian_latitudes(c_long, *mut c_double) -> c_int;
    fn codes_get_error_message(c_int) -> *const c_char;
    fn codes_context_set_logging_proc(*mut c_void, LogProcedure);
}

/// As much of the library's own words as an error repeats.
const LOG_LIMIT: usize = 300;
/// Longer texts than this are in no message; shorter buffers are not safe with all of its keys.
const TEXT_LIMIT: usize = 16 * 1024;

static LOCK: Mutex<()> = Mutex::new(());

thread_local! {
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The functions of the library, which is loaded once and stays; or why there is none.
fn functions() -> Result<&'static Functions, &'static str> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| match std::env::var_os(NAMED) {
        Some(named) => load(&named),
        None => {
            let mut failed = Vec::new();
            for name in NAMES {
                match load(&OsString::from(name)) {
                    Ok(functions) => return Ok(functions),
                    Err(reason) => failed.push(reason),
                }
            }
            Err(failed.join("; "))
        }
    });
    loaded.as_ref().map_err(String::as_str)
}

fn load(name: &OsString) -> Result<Functions, String> {
    let failed = |error: libloading::Error| {
        // The error says which call failed, and its source why: in a sentence with the file's name.
        let why = std::error::Error::source(&error).map(ToString::to_string);
        why.unwrap_or_else(|| error.to_string())
    };
    // SAFETY: what runs when ecCodes is loaded only sets up its own tables.
    let library = unsafe { libloading::Library::new(name) }.map_err(failed)?;
    // SAFETY: these are ecCodes' functions as its header declares them, from version 2.28 on, and the library
    // is leaked below.
    let functions = unsafe { Functions::of(&library) }.map_err(failed)?;
    // SAFETY: the function takes nothing and returns a number.
    let version = unsafe { (functions.codes_get_api_version)() };
    if version < OLDEST {
        return Err(format!(
            "{} is version {}",
            name.to_string_lossy(),
            readable(version)
        ));
    }
    std::mem::forget(library);
    // SAFETY: a null context is the default one; the procedure lives as long as the program.
    unsafe { (functions.codes_context_set_logging_proc)(std::ptr::null_mut(), log) };
    Ok(functions)
}

/// A version in the library's numbers as people read it.
fn readable(version: c_long) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}

/// Loads the library, if it is not loaded yet; its version.
pub(crate) fn version() -> Result<String, Error> {
    let functions = functions().map_err(|reason| Error::Library {
        reason: reason.to_owned(),
    })?;
    // SAFETY: the function takes nothing and returns a number.
    Ok(readable(unsafe { (functions.codes_get_api_version)() }))
}

/// The library during one call.
struct Library {
    functions: &'static Functions,
    _lock: MutexGuard<'static, ()>,
}

impl Deref for Library {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        self.functions
    }
}

/// Waits for the library, and forgets what it said before.
fn library() -> Result<Library, Failure> {
    functions()
        .map(locked)
        .map_err(|reason| Failure(format!("ecCodes cannot be loaded: {reason}")))
}

fn locked(functions: &'static Functions) -> Library {
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    LOGGED.with_borrow_mut(String::clear);
    Library {
        functions,
        _lock: lock,
    }
}

/// Called by the library, in the thread of the call that it says something about.
extern "C" fn log(_context: *const c_void, _level: c_int, message: *const c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: the library passes a text that ends with zero and lives during this call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // While a thread ends, its log is gone; what is said then is of no use.
    let _ = LOGGED.try_with(|logged| {
        if let Ok(mut logged) = logged.try_borrow_mut()
            && logged.is_empty()
        {
            logged.extend(
                message
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .take(LOG_LIMIT),
            );
        }
    });
}

impl Library {
    /// The failure of a call, from its code and what was logged since it began.
    fn failure(&self, code: c_int) -> Failure {
        // SAFETY: the library returns a constant text for every number.
        let text = unsafe {
            let text = (self.codes_get_error_message)(code);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
        };
        let text = text.unwrap_or_default();
        let logged = LOGGED.with_borrow(Clone::clone);
        Failure(match logged.trim() {
            "" => text.into_owned(),
            logged => format!("{text}: {logged}"),
        })
    }

    fn check(&self, code: c_int) -> Result<(), Failure> {
        match code {
            0 => Ok(()),
            code => Err(self.failure(code)),
        }
    }

    /// The message of a handle that the library returned.
    fn owned(&self, message: *mut c_void) -> Result<Handle, Failure> {
        /// The library's number for a message that it cannot take.
        const INVALID_MESSAGE: c_int = -12;
        match NonNull::new(message) {
            Some(message) => Ok(Handle {
                message,
                functions: self.functions,
            }),
            None => Err(self.failure(INVALID_MESSAGE)),
        }
    }
}

/// The latitudes of a Gaussian grid with so many of them between a pole and the equator, from north
/// to south.
pub(crate) fn gaussian_latitudes(n: u32) -> Result<Vec<f64>, Failure> {
    let library = library()?;
    let mut latitudes = vec![0.0; 2 * n as usize];
    // SAFETY: there are the 2 n places that the library fills.
    library.check(unsafe {
        (library.codes_get_gaussian_latitudes)(c_long::from(n), latitudes.as_mut_ptr())
    })?;
    Ok(latitudes)
}

/// One message inside the library.
#[derive(Debug)]
pub(crate) struct Handle {
    message: NonNull<c_void>,
    functions: &'static Functions,
}

// SAFETY: a handle belongs to no thread, and the lock orders all calls. It is not `Sync`: reading a
// key fills caches inside the handle.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        let library = locked(self.functions);
        // SAFETY: the handle is alive, owned by this value alone, and not used after this.
        unsafe { (library.codes_handle_delete)(self.message.as_ptr()) };
    }
}

impl Handle {
    /// A message with a copy of these bytes.
    pub(crate) fn from_message(bytes: &[u8]) -> Result<Self, Failure> {
        let library = library()?;
        // SAFETY: a null context is the default one; the bytes are copied during the call.
        let handle = unsafe {
            (library.codes_handle_new_from_message_copy)(
                std::ptr::null_mut(),
                bytes.as_ptr().cast(),
                bytes.len(),
            )
        };
        library.owned(handle)
    }

    /// A message that comes with the library.
    pub(crate) fn from_sample(name: &CStr) -> Result<Self, Failure> {
        let library = library()?;
        // SAFETY: a null context is the default one; the name ends with zero.
        let handle =
            unsafe { (library.codes_handle_new_from_samples)(std::ptr::null_mut(), name.as_ptr()) };
        library.owned(handle)
    }

    /// A copy of the message.
    pub(crate) fn copy(&self) -> Result<Self, Failure> {
        let library = locked(self.functions);
        // SAFETY: the handle is alive; the copy shares nothing with it.
        let handle = unsafe { (library.codes_handle_clone)(self.message.as_ptr()) };
        library.owned(handle)
    }

    /// The bytes of the message.
    pub(crate) fn message(&mut self) -> Result<&[u8], Failure> {
        let library = locked(self.functions);
        let mut message = std::ptr::null();
        let mut length = 0;
        // SAFETY: the handle is alive, and both results are written before they are read. The bytes
        // belong to the handle and change only by calls that borrow it, as this result does.
        unsafe {
            library.check((library.codes_get_message)(
                self.message.as_ptr(),
                &raw mut message,
                &raw mut length,
            ))?;
            if message.is_null() {
                return Ok(&[]);
            }
            Ok(std::slice::from_raw_parts(message.cast::<u8>(), length))
        }
    }

    /// Whether the message has a key.
    pub(crate) fn has(&self, key: &CStr) -> bool {
        let library = locked(self.functions);
        // SAFETY: the handle is alive, and the key ends with zero.
        unsafe { (library.codes_is_defined)(self.message.as_ptr(), key.as_ptr()) != 0 }
    }

    /// Whether a key of the message says that it has no value.
    pub(crate) fn is_missing(&self, key: &CStr) -> Result<bool, Failure> {
        let library = locked(self.functions);
        let mut code = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the code lives during the call.
        let missing = unsafe {
            (library.codes_is_missing)(self.message.as_ptr(), key.as_ptr(), &raw mut code)
        };
        library.check(code)?;
        Ok(missing != 0)
    }

    /// The number of values of a key.
    pub(crate) fn size(&self, key: &CStr) -> Result<usize, Failure> {
        let library = locked(self.functions);
        let mut size = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the size lives during the call.
        library.check(unsafe {
            (library.codes_get_size)(self.message.as_ptr(), key.as_ptr(), &raw mut size)
        })?;
        Ok(size)
    }

    /// An integer of the message.
    pub(crate) fn integer(&self, key: &CStr) -> Result<i64, Failure> {
        let library = locked(self.functions);
        let mut value = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the value lives during the call.
        library.check(unsafe {
            (library.codes_get_long)(self.message.as_ptr(), key.as_ptr(), &raw mut value)
        })?;
        Ok(value)
    }

    /// A real number of the message.
    pub(crate) fn real(&self, key: &CStr) -> Result<f64, Failure> {
        let library = locked(self.functions);
        let mut value = 0.0;
        // SAFETY: the handle is alive, the key ends with zero, and the value lives during the call.
        library.check(unsafe {
            (library.codes_get_double)(self.message.as_ptr(), key.as_ptr(), &raw mut value)
        })?;
        Ok(value)
    }

    /// A text of the message.
    pub(crate) fn text(&self, key: &CStr) -> Result<String, Failure> {
        let library = locked(self.functions);
        let mut text = vec![0_u8; TEXT_LIMIT];
        let mut length = text.len();
        // SAFETY: the handle is alive, the key ends with zero, and the text has as many bytes as
        // the library is told.
        library.check(unsafe {
            (library.codes_get_string)(
                self.message.as_ptr(),
                key.as_ptr(),
                text.as_mut_ptr().cast(),
                &raw mut length,
            )
        })?;
        let end = text.iter().position(|&byte| byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// As many integers of the message as there are, but no more than the values have room for;
    /// how many there were.
    pub(crate) fn integers(&self, key: &CStr, values: &mut [i64]) -> Result<usize, Failure> {
        let library = locked(self.functions);
        let mut length = values.len();
        // SAFETY: the handle is alive, the key ends with zero, and there are as many values as the
        // library is told; it fails if it has more.
        library.check(unsafe {
            (library.codes_get_long_array)(
                self.message.as_ptr(),
                key.as_ptr(),
                values.as_mut_ptr(),
                &raw mut length,
            )
        })?;
        Ok(length)
    }

    /// Like [`Self::integers`], with real numbers.
    pub(crate) fn reals(&self, key: &CStr, values: &mut [f64]) -> Result<usize, Failure> {
        let library = locked(self.functions);
        let mut length = values.len();
        // SAFETY: the handle is alive, the key ends with zero, and there are as many values as the
        // library is told; it fails if it has more.
        library.check(unsafe {
            (library.codes_get_double_array)(
                self.message.as_ptr(),
                key.as_ptr(),
                values.as_mut_ptr(),
                &raw mut length,
            )
        })?;
        Ok(length)
    }

    /// Sets an integer.
    pub(crate) fn set_integer(&mut self, key: &CStr, value: i64) -> Result<(), Failure> {
        let library = locked(self.functions);
        // SAFETY: the handle is alive and borrowed by this call alone, and the key ends with zero.
        library
            .check(unsafe { (library.codes_set_long)(self.message.as_ptr(), key.as_ptr(), value) })
    }

    /// Sets a real number.
    pub(crate) fn set_real(&mut self, key: &CStr, value: f64) -> Result<(), Failure> {
        let library = locked(self.functions);
        // SAFETY: the handle is alive and borrowed by this call alone, and the key ends with zero.
        library.check(unsafe {
            (library.codes_set_double)(self.message.as_ptr(), key.as_ptr(), value)
        })
    }

    /// Sets a text.
    pub(crate) fn set_text(&mut self, key: &CStr, text: &CStr) -> Result<(), Failure> {
        let library = locked(self.functions);
        let mut length = text.to_bytes().len();
        // SAFETY: the handle is alive and borrowed by this call alone; key and text end with zero.
        library.check(unsafe {
            (library.codes_set_string)(
                self.message.as_ptr(),
                key.as_ptr(),
                text.as_ptr(),
                &raw mut length,
            )
        })
    }

    /// Sets integers.
    pub(crate) fn set_integers(&mut self, key: &CStr, values: &[i64]) -> Result<(), Failure> {
        let library = locked(self.functions);
        // SAFETY: the handle is alive and borrowed by this call alone, the key ends with zero, and
        // there are as many values as the library is told.
        library.check(unsafe {
            (library.codes_set_long_array)(
                self.message.as_ptr(),
                key.as_ptr(),
                values.as_ptr(),
                values.len(),
            )
        })
    }

    /// Sets real numbers.
    pub(crate) fn set_reals(&mut self, key: &CStr, values: &[f64]) -> Result<(), Failure> {
        let library = locked(self.functions);
        // SAFETY: the handle is alive and borrowed by this call alone, the key ends with zero, and
        // there are as many values as the library is told.
        library.check(unsafe {
            (library.codes_set_double_array)(
                self.message.as_ptr(),
                key.as_ptr(),
                values.as_ptr(),
                values.len(),
            )
        })
    }
}
