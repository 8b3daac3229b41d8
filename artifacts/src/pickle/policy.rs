//! What a checkpoint may import.
//!
//! Allowed is what checkpoints of PyTorch, Lightning and neural-lam need and what is harmless
//! whatever it is called with: PyTorch's own list for `weights_only=True`, plain data types, and
//! configuration classes. Never allowed by a pattern is what can run a command, load code or
//! change files.

use super::Global;

/// What to think of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Harmless, or allowed by the user.
    Allowed,
    /// Not known to be harmless.
    Unknown,
    /// Can run commands or code, or hides what it is. Allowed only if named exactly.
    Dangerous,
}

/// What is allowed besides the built-in list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// `module.name`, or `module.*` for every plain name in the module and the modules below it
    /// that is not dangerous.
    pub allow: Vec<String>,
}

impl CheckpointPolicy {
    /// The verdict on one global.
    pub fn verdict(&self, global: &Global) -> Verdict {
        let verdict = global.verdict();
        if verdict == Verdict::Allowed || self.names(global, verdict) {
            return Verdict::Allowed;
        }
        verdict
    }

    /// Those that are not allowed, with the reason, in the same order.
    pub fn refused<'a>(&self, globals: &'a [Global]) -> Vec<(&'a Global, Verdict)> {
        globals
            .iter()
            .map(|global| (global, self.verdict(global)))
            .filter(|(_, verdict)| *verdict != Verdict::Allowed)
            .collect()
    }

    /// Those that only the user allowed, in the same order.
    pub fn overridden<'a>(&self, globals: &'a [Global]) -> Vec<&'a Global> {
        let overridden = |global: &&Global| {
            let verdict = global.verdict();
            verdict != Verdict::Allowed && self.names(global, verdict)
        };
        globals.iter().filter(overridden).collect()
    }

    fn names(&self, global: &Global, verdict: Verdict) -> bool {
        let text = global.to_string();
        self.allow
            .iter()
            .any(|pattern| match pattern.strip_suffix(".*") {
                Some(module) => {
                    verdict == Verdict::Unknown
                        && is_plain(&global.name)
                        && is_in(&global.module, module)
                }
                None => *pattern == text,
            })
    }
}

impl Global {
    /// The verdict of the built-in lists.
    pub fn verdict(&self) -> Verdict {
        let (module, name) = (self.module.as_str(), self.name.as_str());
        let parts = || module.split('.').chain(name.split('.'));
        if !parts().all(is_plain) {
            return Verdict::Dangerous;
        }
        if is_plain(name) && is_allowed(module, name) {
            return Verdict::Allowed;
        }
        let first = module.split('.').next().unwrap_or_default();
        let dangerous = has_word(DANGEROUS_MODULES, first)
            || DANGEROUS_BELOW
                .split_whitespace()
                .any(|below| is_in(module, below))
            || parts().any(|part| has_word(DANGEROUS_PARTS, part));
        if dangerous {
            Verdict::Dangerous
        } else {
            Verdict::Unknown
        }
    }
}

/// An ASCII identifier: no dot, which would lead on to attributes, and no letters that look like
/// others.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The module itself or one below it.
fn is_in(module: &str, above: &str) -> bool {
    module
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_allowed(module: &str, name: &str) -> bool {
    let listed = ALLOWED
        .iter()
        .any(|(modules, names)| has_word(modules, module) && has_word(names, name));
    listed
        || (matches!(module, "torch" | "torch.cuda") && is_storage(name))
        || (has_word(TORCH_LAYERS, module) && name.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// `torch.FloatStorage` and its siblings.
fn is_storage(name: &str) -> bool {
    const TYPES: &str = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat \
         QInt8 QInt32 QUInt8 QUInt4x2 QUInt2x4 Untyped Typed";
    name.strip_suffix("Storage")
        .is_some_and(|kind| has_word(TYPES, kind))
}

/// Words of a list that is written as one text.
fn has_word(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

/// Modules, and the names that are allowed in each of them.
const ALLOWED: &[(&str, &str)] = &[
    (
        "torch",
        "Size Tensor Generator device dtype finfo iinfo layout strided float16 float32 float64 \
         bfloat16 half float double float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz \
         uint8 uint16 uint32 uint64 int8 int16 int32 int64 short int long bool complex32 \
         complex64 complex128 chalf cfloat cdouble qint8 qint32 quint8 quint4x2 quint2x4 \
         per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric \
         per_channel_affine_float_qparams contiguous_format channels_last channels_last_3d \
         preserve_format",
    ),
    (
        "torch._utils",
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter \
         _rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor \
         _rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_numpy \
         _rebuild_device_tensor_from_cpu_tensor",
    ),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.nn.parameter", "Parameter Buffer"),
    ("torch.serialization", "_get_layout"),
    ("torch.storage", "TypedStorage UntypedStorage"),
    (
        "builtins __builtin__",
        "bool bytearray bytes complex dict float frozenset int list long object range set slice \
         str tuple unicode xrange Ellipsis NotImplemented",
    ),
    ("collections", "Counter OrderedDict defaultdict deque"),
    ("copyreg copy_reg", "_reconstructor"),
    ("_codecs", "encode"),
    ("datetime", "date datetime time timedelta timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    (
        "pathlib pathlib._local",
        "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    ),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("uuid", "UUID SafeUUID"),
    ("typing", "Any Dict List Optional Tuple Union"),
    (
        "numpy.core.multiarray numpy._core.multiarray",
        "_reconstruct scalar",
    ),
    ("numpy.core.numeric numpy._core.numeric", "_frombuffer"),
    (
        "numpy",
        "dtype ndarray bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 \
         float32 float64 complex64 complex128 datetime64 timedelta64 str_ bytes_",
    ),
    (
        "numpy.dtypes",
        "BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType \
         UInt32DType UInt64DType Float16DType Float32DType Float64DType Complex64DType \
         Complex128DType DateTime64DType TimeDelta64DType StrDType BytesDType",
    ),
    (
        "neural_lam.config",
        "DatastoreSelection ManualStateFeatureWeighting NeuralLAMConfig OutputClamping \
         TrainingConfig UniformFeatureWeighting",
    ),
    (
        "lightning_fabric.utilities.data lightning.fabric.utilities.data \
         pytorch_lightning.utilities.parsing lightning.pytorch.utilities.parsing",
        "AttributeDict",
    ),
    ("omegaconf.base", "ContainerMetadata Metadata"),
    ("omegaconf.dictconfig", "DictConfig"),
    ("omegaconf.listconfig", "ListConfig"),
    (
        "omegaconf.nodes",
        "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
    ),
];

/// Modules that hold nothing but layers, whose classes take numbers.
const TORCH_LAYERS: &str = "torch.nn.modules.activation torch.nn.modules.batchnorm torch.nn.modules.container \
     torch.nn.modules.conv torch.nn.modules.dropout torch.nn.modules.flatten \
     torch.nn.modules.instancenorm torch.nn.modules.linear torch.nn.modules.loss \
     torch.nn.modules.normalization torch.nn.modules.padding torch.nn.modules.pooling \
     torch.nn.modules.sparse torch.nn.modules.upsampling";

/// Top-level modules of which nothing is harmless enough. `builtins` and some others have
/// exceptions among the allowed.
const DANGEROUS_MODULES: &str = "__builtin__ __main__ _codecs _ctypes _io _pickle _posixsubprocess _socket _thread aiohttp \
     asyncio atexit bdb builtins cProfile cPickle cffi cloudpickle code codecs codeop commands \
     concurrent copy_reg copyreg ctypes dbm dill distutils doctest ensurepip faulthandler fcntl \
     fileinput ftplib gc http httplib httpx idlelib imaplib imp importlib inspect io joblib \
     jsonpickle lib2to3 linecache logging marshal mmap msvcrt multiprocess multiprocessing nt \
     ntpath numexpr operator os paramiko pdb pickle pickletools pip pkg_resources pkgutil \
     platform poplib popen2 posix posixpath profile pty py_compile pydoc readline requests \
     resource rlcompleter runpy select setuptools shelve shlex shutil signal site smtplib \
     socket socketserver sqlite3 ssl subprocess symtable sys sysconfig tarfile telnetlib \
     tempfile test thread threading timeit trace traceback turtle types urllib urllib2 urllib3 \
     venv webbrowser winreg xmlrpc zipapp zipfile zipimport";

/// Parts of otherwise harmless libraries that load code or files.
const DANGEROUS_BELOW: &str = "numpy.ctypeslib numpy.distutils numpy.f2py numpy.lib numpy.testing pandas.io torch._dynamo \
     torch._inductor torch._jit_internal torch.compiler torch.distributed torch.fx \
     torch.hub torch.jit torch.multiprocessing torch.ops torch.package torch.serialization \
     torch.storage torch.utils yaml";

/// Names that are dangerous wherever they stand in a path.
const DANGEROUS_PARTS: &str = "__builtins__ __class__ __closure__ __code__ __dict__ __getattribute__ __globals__ \
     __import__ __init_subclass__ __loader__ __subclasses__ attrgetter builtins check_output \
     compile ctypes eval exec execfile getattr import_module importlib load loads methodcaller \
     open os popen read_pickle runstring setattr shutil socket subprocess sys system";
