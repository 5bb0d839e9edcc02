"""Every setting of the pipeline, once.

Change a value here, or for one run on the command line (`python scripts/1_prepareData.py --ratioTrainTest 0.8`), or by
environment variable (`PARAMETERS_ratioTrainTest=0.8`). `python scripts/1_prepareData.py --help` explains them all.

Each line reads: name: type = script(default, "what it does", limits, matters_to=what it changes). An output is stale
once a parameter that matters to it has changed: see libraries/base/stages.py. The default of matters_to is the group's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from libraries.base.layout import COVERAGE, LR_PEAK, MEGAPIXELS, UNKNOWN_RATE
from libraries.base.settings import FolderName, Name, Settings, UserPath, group
from libraries.web.search.names import LicenceFilter, ProviderName
from libraries.web.store.address import StoreUrl

if TYPE_CHECKING:
    from libraries.base.layout import Layout
    from libraries.classifier.fitting import FitOptions
    from libraries.data.dataset import Example
    from libraries.data.images import ResizeRule
    from libraries.network.pretrained import NetworkOptions
    from libraries.network.runners import RunOptions
    from libraries.network.training.task import Task

RESOURCES = Path(__file__).parent / "resources"

general = group("All scripts")
download = group("0_downloadData", matters_to=())
prepare = group("1_prepareData", matters_to="examples")
refine = group("2_refineDNN", matters_to="training")
run = group("3_runDNN", matters_to="features")
svm = group("4_trainSVM", matters_to="svm")
tune = group("tune", matters_to=())
call = group("6_callWebservice", matters_to=())
serve = group("deploymain", matters_to=())


class Parameters(Settings):
    """All parameters, grouped by the script that reads them first."""

    # ---- All scripts
    classifier: Literal["svm", "dnn", "svmDnnRefined"] = general(
        "svm",
        "svm: linear SVM on a fixed network; dnn: the refined network; svmDnnRefined: linear SVM on the refined one",
        matters_to="bundle",
    )
    datasetName: FolderName = general(
        "solarCells",
        "name of the data set: its images are in <rootDir>/images/<datasetName>/<label>/",
        pattern=r"^\w[\w .-]*$",
        matters_to="examples",
    )
    rootDir: UserPath = general(
        Path("~/imageClassification"),
        "DATA_DIR: the folder of images, intermediate files and run history",
        matters_to=(),
    )
    randomSeed: int = general(
        0,
        "seed of every random choice: split, folds, augmentation",
        ge=0,
        lt=2**31,
        matters_to=("examples", "training", "svm"),
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = general(
        "auto", "where networks run; auto: the first GPU found, else the CPU", matters_to=()
    )
    cluster: str = general(
        "none",
        "where scripts 0 to 3 work: none: in their own process; local: on this machine's cores and GPUs, by Ray; "
        "auto, or an address, ray-head:6379 or ray://ray-head:10001: on a Ray cluster whose nodes share rootDir",
        matters_to=(),
    )
    storeGigabytes: float = general(
        10.0,
        "size of <rootDir>/store at most, where what is computed from an image is kept for later runs; 0: not used",
        ge=0,
        le=100_000,
        matters_to=(),
    )
    runHistory: bool = general(True, "log every run to MLflow", matters_to=())
    trackingUri: str | None = general(None, "MLflow tracking server; none: the file <rootDir>/mlflow.db", matters_to=())

    # ---- 0_downloadData
    imgUrlsPath: UserPath | None = download(None, "list of images to download, one `label<TAB>url` per line")
    imgLabelsPath: UserPath | None = download(
        None, "table of your own images: `file,label` or `file,label,split`, CSV or TSV, with a header"
    )
    imgLabelsColumns: tuple[str, ...] = download(
        (), "names of its columns for file, label and, if there is one, split; empty: found by their usual names"
    )
    imgFolder: UserPath | None = download(None, "folder of the images in that table; none: the folder of the table")
    imgStoreUrl: StoreUrl | None = download(
        None, "folder of images in an object store, s3://bucket/folder for example: each folder in it is a class"
    )
    searchProvider: ProviderName = download(
        "openverse",
        "search engine for the words in resources/<datasetName>Queries.toml; brave needs a key in the environment "
        "variable BRAVE_API_KEY, serpapi in SERPAPI_API_KEY",
    )
    searchContact: str | None = download(
        None,
        "your e-mail address or web page, sent to the servers with each request; wikimedia requires it",
        private=True,
    )
    searchLicence: LicenceFilter = download(
        "any", "only images whose licence permits commercial use, modification, or both (openverse and wikimedia)"
    )
    searchUrl: str | None = download(
        None, "another server with the provider's API; none: the provider's own", pattern=r"^https?://"
    )
    download_workers: int = download(16, "downloads, or copies from a store, at once", ge=1, le=256)
    download_timeout: float = download(60.0, "seconds after which a download is abandoned", gt=0)
    download_retries: int = download(3, "retries after a temporary failure (time-out, 429, 5xx)", ge=0, le=20)
    download_maxBytes: int = download(50_000_000, "size of the largest file to download [bytes]", gt=0)
    download_maxSide: int = download(1000, "longer side to which larger images are scaled down [pixels]", ge=16)
    download_allowedHosts: tuple[str, ...] = download((), "host names that may resolve to a private or local address")
    download_retryFailed: bool = download(False, "retry URLs that failed permanently in an earlier run")

    # ---- 1_prepareData
    ratioTrainTest: float = prepare(0.75, "fraction of the images (per class) used for training", gt=0, lt=1)
    imagesSplitBy: Literal["filename", "subdir"] = prepare(
        "filename",
        "subdir: all images of one sub-folder of a class go to the same side, so one object is never on both",
    )
    classMap: UserPath | None = prepare(
        None,
        "table `images,class` that merges, splits or leaves out class folders: a folder, or a pattern such as "
        "`cat/siamese/*`, and the class of its images, or nothing; none: each folder is a class",
    )
    duplicates: Literal["exact", "near", "scene"] = prepare(
        "near",
        "which images count as copies, and stay on one side: exact: the same pixels; near: also scaled, compressed, "
        "mirrored or retouched; scene: also similar embeddings",
    )
    duplicates_maxDistance: int = prepare(
        10,
        "near: largest distance of two difference hashes [bits of 256]; above 16 also images that only look alike",
        ge=0,
        le=64,
        matters_to="near duplicates",
    )
    duplicates_minSimilarity: float = prepare(
        0.95,
        "scene: smallest cosine similarity of two embeddings; raise it if all your images look alike",
        ge=0.5,
        le=1,
        matters_to="scene duplicates",
    )
    whiteLevel: int | None = prepare(
        None,
        "value of white in images of more than 8 bits, e.g. 4095 for 12 bits; none: measured from the images",
        ge=1,
        lt=2**31,
    )
    maxMegapixels: int = prepare(
        MEGAPIXELS,
        "size of the largest image that is used [million pixels, each 1 to 8 bytes while decoding]",
        ge=1,
        le=2000,
        matters_to="pixel limit",
    )
    importLabels: UserPath | None = prepare(
        None, "a Label Studio project, exported as JSON, whose labels are taken over", matters_to=()
    )

    # ---- 2_refineDNN
    rf_pretrainedModelFilename: str = refine(
        "EfficientNet_Lite0",
        "EfficientNet_Lite0, ResNet_18.model, ResNet_34.model, ResNet_50.model, any timm name, a file of weights, or a "
        "network as a CNTK (.model) or ONNX (.onnx) file",
        min_length=1,
        matters_to="network",
    )
    rf_inputResolution: int = refine(
        224,
        "width and height of the network's input [pixels]",
        ge=32,
        le=2048,
        formerly=["rf_inputResoluton"],
        matters_to="network",
    )
    rf_resizeMode: Literal["pad", "crop", "stretch"] = refine(
        "pad",
        "how an image becomes square: pad with the mean colour, crop the longer side, or stretch",
        matters_to="network",
    )
    rf_views: Literal[1, 2, 8] = refine(
        1,
        "number of views of each image whose embeddings are averaged, which multiplies the cost: 2: also mirrored; "
        "8: every orientation",
        matters_to="network",
    )
    rf_featureMaps: Literal[3] | None = refine(
        None,
        "3: the embedding also has the means of two inner feature maps (EfficientNet_Lite only): it is more accurate, "
        "and 2.4 times as long; none: only that of the last map",
        matters_to="network",
    )
    rf_embeddingNode: str | None = refine(
        None,
        ".model, .onnx: node whose output is the embedding; none: the input of the last layer",
        matters_to="network file",
    )
    rf_channelOrder: Literal["rgb", "bgr"] | None = refine(
        None,
        ".model, .onnx: order of the network's input channels; none: bgr for CNTK, rgb for ONNX",
        matters_to="network file",
    )
    rf_channelMeans: tuple[float, float, float] | None = refine(
        None,
        ".model, .onnx: mean of each channel, 0 to 255, in that order; none: 114 for CNTK, ImageNet's for ONNX",
        matters_to="network file",
    )
    rf_channelStds: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = refine(
        None,
        ".model, .onnx: standard deviation of each channel; none: 1 for CNTK, ImageNet's for ONNX",
        matters_to="network file",
    )
    rf_labels: tuple[Name, ...] = refine(
        (),
        "classes of a network used as it is (rf_maxEpochs 0), in its order; empty: in alphabetical order",
        matters_to="own classes",
    )
    rf_dropoutRate: float = refine(0.5, "dropout before the new head", ge=0, lt=1)
    rf_mbSize: int = refine(
        16, "images per training step; halve it when memory runs out", ge=1, formerly=["cntk_mb_size"]
    )
    rf_maxEpochs: int = refine(
        45,
        "passes over the training images; 0: use a .model or .onnx network as it is, with its own classes",
        ge=0,
        le=10_000,
        matters_to=("training", "own classes"),
    )
    rf_maxTrainImages: int | None = refine(
        None, "train on about this many images, drawn per class, at least two of each", ge=2
    )
    rf_lrPerMb: Literal["auto"] | tuple[PositiveFloat, ...] = refine(
        "auto", "auto: warm-up and cosine; or one learning rate per epoch, the last one repeated (SGD with momentum)"
    )
    rf_lrPeak: PositiveFloat = refine(
        LR_PEAK, "highest learning rate, where rf_lrPerMb = auto", matters_to="highest rate"
    )
    rf_momentumPerMb: float = refine(0.9, "momentum (first moment) of the optimiser", ge=0, lt=1)
    rf_l2RegWeight: float = refine(0.0005, "weight decay", ge=0)
    rf_boFreezeWeights: bool = refine(False, "train only the new head, and keep the pretrained weights as they are")
    rf_boBalanceTrainingSet: bool = refine(False, "weight images so that every class counts the same")
    rf_augmentation: Literal["photo", "anyOrientation", "none"] = refine(
        "photo",
        "random changes of training images; anyOrientation: also rotated and flipped (cells, satellite images, parts)",
    )
    rf_validationFraction: float = refine(0.1, "fraction of the training set that chooses the best epoch", gt=0, lt=0.9)

    # ---- 3_runDNN
    run_mbSize: int = run(
        128, "images per step on a GPU; on a CPU each core takes one image at a time", ge=1, le=1024, matters_to=()
    )
    run_precision: Literal["f32", "bf16"] = run("f32", "bf16 is about twice as fast on processors that support it")

    # ---- 4_trainSVM
    svm_CVals: tuple[PositiveFloat, ...] = svm(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
        "values of C to choose from by cross-validation, ascending, until accuracy has turned",
        min_length=1,
    )
    svm_boL2Normalize: Literal["auto"] | bool = svm(
        "auto", "true: embeddings of length 1; false: standardised embeddings; auto: chosen by cross-validation, like C"
    )
    svm_folds: int = svm(5, "folds of the cross-validation", ge=2, le=50)

    unknownRate: float = svm(
        UNKNOWN_RATE,
        "share of the images of your classes that may be called unknown: the higher, the more of others are noticed",
        ge=0.001,
        le=0.5,
        matters_to="trust",
    )
    coverage: float = svm(
        COVERAGE,
        "share of the images whose true label is to be in the set of likely labels that is answered",
        ge=0.5,
        le=0.999,
        matters_to="trust",
    )

    costs: Literal["equal", "classAveraged"] | UserPath = svm(
        "equal",
        "what mistakes cost: equal: all the same; classAveraged: the more, the rarer the class, for a high "
        "class-averaged accuracy; or a table `label,answer,cost`, with * for any, and `ask` as the answer of a person",
        matters_to="costs",
    )

    # ---- tune
    tune_minutes: float = tune(15.0, "time that the search may take", gt=0, le=10_000)
    tune_networks: tuple[str, ...] = tune(
        (), "networks to try besides the present one; empty: the EfficientNet-Lites that are installed"
    )
    tune_resolutions: tuple[int, ...] = tune((224, 288), "input resolutions to try besides the present one [pixels]")

    # ---- 6_callWebservice
    url: str = call("http://127.0.0.1:8080", "the service, or the scoring URI of one in a cloud", pattern=r"^https?://")
    imagePath: UserPath = call(RESOURCES / "testImg.jpg", "the picture that is sent")
    calls: int = call(5, "number of times it is sent", ge=1)
    folder: UserPath | None = call(None, "classify all images of this folder into a CSV file instead")
    rightLabel: str | None = call(
        None, "send the picture with this label, which is the right one, to be learnt from (key: SERVICE_FEEDBACK_KEY)"
    )
    requestsInFlight: int = call(4, "concurrent requests while a folder is classified", ge=1, le=64)

    # ---- deploymain
    bundle: UserPath | None = serve(None, "folder of the bundle; none: the bundle of the current parameters")
    candidate: UserPath | None = serve(
        None, "folder of another bundle, whose answers to what comes are only compared, and not given: see GET /model"
    )
    serve_similar: Literal["local", "always", "never"] = serve(
        "local",
        "whether the page shows training images that are like a picture which is unknown or not certain; local: only "
        "if no other machine can reach the service",
    )
    host: str = serve("127.0.0.1", "address to listen on; 0.0.0.0 can be reached from other machines")
    port: int = serve(8080, "port to listen on", ge=0, le=65535)
    keyFile: UserPath | None = serve(
        None, "file with the key that callers must send; none: the environment variable SERVICE_KEY, if set"
    )
    adminKeyFile: UserPath | None = serve(None, "the same for POST /admin/...; none: SERVICE_ADMIN_KEY, if set")
    feedbackKeyFile: UserPath | None = serve(
        None, "the same for POST /feedback; none: SERVICE_FEEDBACK_KEY, if set, else there is no feedback"
    )
    serve_keep: Literal["none", "uncertain", "sample"] = serve(
        "none",
        "images of requests that are kept in the pool of the data set, to get a label; uncertain: those whose most "
        "probable label is less probable than serve_keepBelow, and unknown ones; sample: a share, serve_keepShare",
    )
    serve_keepFolder: UserPath | None = serve(None, "another folder for them; none: images/<datasetName>.pool")
    serve_keepBelow: float = serve(0.7, "probability below which an answer is uncertain", gt=0, le=1)
    serve_keepShare: float = serve(0.01, "share of the images that is drawn", gt=0, le=1)
    serve_keepMegabytes: int = serve(1000, "size of what is kept at most, feedback included [megabytes]", ge=1)
    serve_keepDays: int = serve(30, "days after which it is removed, but for feedback", ge=1, le=3650)
    serve_maxMegabytes: int = serve(32, "size of the largest request that is accepted [megabytes]", ge=1, le=1024)
    serve_maxImages: int = serve(64, "number of images in one request that are accepted", ge=1, le=10_000)
    serve_maxMegapixels: int = serve(50, "size of the largest image that is accepted [million pixels]", ge=1, le=2000)
    serve_maxQueue: int = serve(6, "images waiting per core above which requests are refused", ge=0, le=10_000)
    serve_timeout: float = serve(30.0, "time after which an accepted request is abandoned [seconds]", gt=0)
    serve_requestsPerMinute: int | None = serve(
        None, "requests accepted from one address, or one IPv6 network (/64); none: no limit", ge=1
    )
    serve_trustedProxies: tuple[str, ...] = serve(
        (),
        "addresses or networks of trusted proxies, whose X-Forwarded-For, -Proto, -Prefix and Forwarded are used",
    )
    serve_allowedHosts: tuple[str, ...] = serve(
        (),
        "host names that requests may be addressed to, on any port; *.name: all names below it; empty: on a loopback "
        "address names of this machine only, otherwise any",
    )
    serve_rootPath: str = serve("", "path under which a proxy makes the service available, e.g. /cells")

    def run_options(self) -> "RunOptions":
        """How networks are run."""
        from libraries.network.runners import RunOptions

        return RunOptions(self.device, self.run_precision, self.run_mbSize, self.cluster)

    def fit_options(self) -> "FitOptions":
        """How classifiers on embeddings are fitted."""
        from libraries.classifier.fitting import FitOptions
        from libraries.classifier.sweep import normalisations

        return FitOptions(
            self.svm_CVals,
            normalisations(self.svm_boL2Normalize),
            self.svm_folds,
            self.randomSeed,
            self.costs,
            self.unknownRate,
            self.coverage,
        )

    def seen_in_training(self, examples: Sequence["Example"]) -> set[str]:
        """Paths of the images that the network is trained on."""
        from libraries.data.division import divide

        if self.classifier == "svm" or self.rf_maxEpochs == 0:
            return set()
        division = divide(
            examples,
            validation_fraction=self.rf_validationFraction,
            most=self.rf_maxTrainImages,
            seed=self.randomSeed,
        )
        return {example.path for example in division.training}

    def refine_task(self, layout: "Layout", rule: "ResizeRule") -> "Task":
        """How the network is refined, on the data set of a layout."""
        from libraries.network.training.recipe import RefineOptions
        from libraries.network.training.task import Task

        options = RefineOptions(
            epochs=self.rf_maxEpochs,
            batch=self.rf_mbSize,
            learning_rates=None if self.rf_lrPerMb == "auto" else self.rf_lrPerMb,
            peak=self.rf_lrPeak,
            momentum=self.rf_momentumPerMb,
            l2=self.rf_l2RegWeight,
            dropout=self.rf_dropoutRate,
            freeze=self.rf_boFreezeWeights,
            balance=self.rf_boBalanceTrainingSet,
            augmentation=self.rf_augmentation,
            seed=self.randomSeed,
        )
        return Task(
            examples=layout.examples.folder / "examples.csv",
            images=layout.images,
            validation_fraction=self.rf_validationFraction,
            most=self.rf_maxTrainImages,
            seed=self.randomSeed,
            rule=rule,
            options=options,
            checkpoint=layout.network.folder / "checkpoint.safetensors",
            key=layout.network.key(),
        )

    def network_options(self) -> "NetworkOptions":
        """The pretrained network; here because several scripts need it."""
        from libraries.network.graphs.load import GraphOptions
        from libraries.network.pretrained import NetworkOptions

        return NetworkOptions(
            self.rf_pretrainedModelFilename,
            self.rf_inputResolution,
            self.rf_resizeMode,
            self.rf_views,
            self.rf_featureMaps or 1,
            GraphOptions(self.rf_embeddingNode, self.rf_channelOrder, self.rf_channelMeans, self.rf_channelStds),
        )
