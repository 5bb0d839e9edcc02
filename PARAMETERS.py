"""Every setting of the pipeline, once.

Change a value here, or for one run on the command line (`python scripts/1_prepareData.py --ratioTrainTest 0.8`), or by
environment variable (`PARAMETERS_ratioTrainTest=0.8`). `python scripts/1_prepareData.py --help` explains them all.
Reads: name: type = script(default, "what it does", limits, matters_to=what becomes stale when it changes). Without
matters_to it is what the script makes: see the groups below, and libraries/base/stages.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from libraries.base.layout import MEGAPIXELS
from libraries.base.settings import FolderName, Name, Settings, UserPath, group
from libraries.web.search.names import LicenceFilter, ProviderName

if TYPE_CHECKING:
    from libraries.network.pretrained import NetworkOptions

RESOURCES = Path(__file__).parent / "resources"

general = group("All scripts")
download = group("0_downloadData", matters_to=())
prepare = group("1_prepareData", matters_to="examples")
refine = group("2_refineDNN", matters_to="training")
run = group("3_runDNN", matters_to="features")
svm = group("4_trainSVM", matters_to="svm")
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
        "name of the data set: images lie in <rootDir>/images/<datasetName>/<label>/",
        pattern=r"^\w[\w .-]*$",
        matters_to="examples",
    )
    rootDir: UserPath = general(
        Path("~/imageClassification"), "DATA_DIR: where images, intermediate files and run history lie", matters_to=()
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
    runHistory: bool = general(True, "log every run to MLflow", matters_to=())
    trackingUri: str | None = general(None, "MLflow tracking server; none: the file <rootDir>/mlflow.db", matters_to=())

    # ---- 0_downloadData
    imgUrlsPath: UserPath | None = download(None, "list of images to download, one `label<TAB>url` per line")
    imgLabelsPath: UserPath | None = download(
        None, "table of images that you have: `file,label` or `file,label,split`, CSV or TSV, with a header"
    )
    imgLabelsColumns: tuple[str, ...] = download(
        (), "columns of that table for file, label and, if it has one, split; empty: known by their usual names"
    )
    imgFolder: UserPath | None = download(None, "where the images of that table lie; none: beside it")
    searchProvider: ProviderName = download(
        "openverse",
        "who searches for the words in resources/<datasetName>Queries.toml; brave needs a key in the environment "
        "variable BRAVE_API_KEY, serpapi one in SERPAPI_API_KEY",
    )
    searchContact: str | None = download(
        None, "your e-mail address or web page, told to the servers that are asked; wikimedia wants it", private=True
    )
    searchLicence: LicenceFilter = download(
        "any", "only images whose licence permits commercial use, modification, or both (openverse and wikimedia)"
    )
    searchUrl: str | None = download(
        None, "another server that answers like the provider; none: its own", pattern=r"^https?://"
    )
    download_workers: int = download(16, "downloads at once", ge=1, le=256)
    download_timeout: float = download(60.0, "seconds after which one download is given up", gt=0)
    download_retries: int = download(3, "further tries after a failure that may pass (time-out, 429, 5xx)", ge=0, le=20)
    download_maxBytes: int = download(50_000_000, "larger files are not downloaded [bytes]", gt=0)
    download_maxSide: int = download(1000, "larger images are scaled down to this longer side [pixels]", ge=16)
    download_allowedHosts: tuple[str, ...] = download((), "host names that may have a private or local address")
    download_retryFailed: bool = download(False, "try URLs again that failed for good in an earlier run")

    # ---- 1_prepareData
    ratioTrainTest: float = prepare(0.75, "fraction of the images (per class) used for training", gt=0, lt=1)
    imagesSplitBy: Literal["filename", "subdir"] = prepare(
        "filename",
        "subdir: all images of one sub-folder of a class go to the same side, so one object is never on both",
    )
    duplicates: Literal["exact", "near", "scene"] = prepare(
        "near",
        "what is taken for one picture, and stays on one side: exact: the same pixels; near: also scaled, compressed, "
        "mirrored, retouched; scene: also embeddings alike",
    )
    duplicates_maxDistance: int = prepare(
        10,
        "near: bits of 256 in which difference hashes differ; above 16 pictures that only look alike",
        ge=0,
        le=64,
        matters_to="near duplicates",
    )
    duplicates_minSimilarity: float = prepare(
        0.95,
        "scene: least cosine of two embeddings; higher where all pictures look alike",
        ge=0.5,
        le=1,
        matters_to="scene duplicates",
    )
    whiteLevel: int | None = prepare(
        None,
        "value that is white in images of more than 8 bits, e.g. 4095 for 12 bits; none: by how far the values reach",
        ge=1,
        lt=2**31,
    )
    maxMegapixels: int = prepare(
        MEGAPIXELS,
        "larger images are left out [million pixels, each 1 to 8 bytes while it is decoded]",
        ge=1,
        le=2000,
        matters_to="pixel limit",
    )
    importLabels: UserPath | None = prepare(
        None, "a project of Label Studio, exported as JSON: what people have said there is taken over", matters_to=()
    )

    # ---- 2_refineDNN
    rf_pretrainedModelFilename: str = refine(
        "EfficientNet_Lite0",
        "EfficientNet_Lite0, ResNet_18.model, ResNet_34.model, ResNet_50.model, any timm name, a file of weights, or a "
        "file with a network of CNTK (.model) or ONNX (.onnx)",
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
        "average the embeddings of so many views, at so many times the cost: 2: also mirrored; 8: every orientation",
        matters_to="network",
    )
    rf_embeddingNode: str | None = refine(
        None,
        ".model, .onnx: node whose output is the embedding; none: what the last layer takes",
        matters_to="network file",
    )
    rf_channelOrder: Literal["rgb", "bgr"] | None = refine(
        None,
        ".model, .onnx: order of the channels the network takes; none: bgr for CNTK, rgb for ONNX",
        matters_to="network file",
    )
    rf_channelMeans: tuple[float, float, float] | None = refine(
        None,
        ".model, .onnx: subtracted from pixels, 0 to 255, in that order; none: 114 for CNTK, ImageNet's for ONNX",
        matters_to="network file",
    )
    rf_channelStds: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = refine(
        None,
        ".model, .onnx: what pixels are divided by then; none: 1 for CNTK, ImageNet's for ONNX",
        matters_to="network file",
    )
    rf_labels: tuple[Name, ...] = refine(
        (),
        "classes of a network taken as it is (rf_maxEpochs 0), in its order; none given: in alphabetical order",
        matters_to="own classes",
    )
    rf_dropoutRate: float = refine(0.5, "dropout before the new head", ge=0, lt=1)
    rf_mbSize: int = refine(
        16, "images per training step; halve it when memory runs out", ge=1, formerly=["cntk_mb_size"]
    )
    rf_maxEpochs: int = refine(
        45,
        "passes over the training images; 0: a .model or .onnx network as it is, with its own classes",
        ge=0,
        le=10_000,
        matters_to=("training", "own classes"),
    )
    rf_maxTrainImages: int | None = refine(
        None, "train on about this many images, drawn per class, two at least of each", ge=2
    )
    rf_lrPerMb: Literal["auto"] | tuple[PositiveFloat, ...] = refine(
        "auto", "auto: warm-up and cosine; or one learning rate per epoch, the last one repeated (SGD with momentum)"
    )
    rf_momentumPerMb: float = refine(0.9, "momentum (first moment) of the optimiser", ge=0, lt=1)
    rf_l2RegWeight: float = refine(0.0005, "weight decay", ge=0)
    rf_boFreezeWeights: bool = refine(False, "train the new head only, keep the pretrained weights as they are")
    rf_boBalanceTrainingSet: bool = refine(False, "weigh images so that every class counts the same")
    rf_augmentation: Literal["photo", "anyOrientation", "none"] = refine(
        "photo",
        "random changes of training images; anyOrientation: also turned and upside down (cells, satellites, parts)",
    )
    rf_validationFraction: float = refine(0.1, "part of the training set that chooses the best epoch", gt=0, lt=0.9)

    # ---- 3_runDNN
    run_mbSize: int = run(
        128, "images per step on a GPU; on a CPU each core takes one image at a time", ge=1, le=1024, matters_to=()
    )
    run_precision: Literal["f32", "bf16"] = run("f32", "bf16 is about twice as fast where the processor has it")

    # ---- 4_trainSVM
    svm_CVals: tuple[PositiveFloat, ...] = svm(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), "values of C to choose from by cross-validation", min_length=1
    )
    svm_boL2Normalize: Literal["auto"] | bool = svm(
        "auto", "true: embeddings of length 1; false: standardised embeddings; auto: chosen by cross-validation, like C"
    )
    svm_folds: int = svm(5, "folds of the cross-validation", ge=2, le=50)

    # ---- 6_callWebservice
    url: str = call("http://127.0.0.1:8080", "the service, or the scoring URI of one in a cloud", pattern=r"^https?://")
    imagePath: UserPath = call(RESOURCES / "testImg.jpg", "the picture that is sent")
    calls: int = call(5, "how often it is sent", ge=1)
    folder: UserPath | None = call(None, "classify all images of this folder into a CSV file instead")
    requestsInFlight: int = call(4, "requests at once when classifying a folder", ge=1, le=64)

    # ---- deploymain
    bundle: UserPath | None = serve(None, "folder of the bundle; none: the bundle of the present parameters")
    host: str = serve("127.0.0.1", "address to listen on; 0.0.0.0 is reached from other machines")
    port: int = serve(8080, "port to listen on", ge=0, le=65535)
    keyFile: UserPath | None = serve(
        None, "file with the key that callers must show; none: the environment variable SERVICE_KEY, if set"
    )
    adminKeyFile: UserPath | None = serve(None, "the same for POST /admin/reload; none: SERVICE_ADMIN_KEY, if set")
    serve_maxMegabytes: int = serve(32, "larger requests are refused", ge=1, le=1024)
    serve_maxImages: int = serve(64, "more images in one request are refused", ge=1, le=10_000)
    serve_maxMegapixels: int = serve(50, "larger images are refused", ge=1, le=100)
    serve_maxQueue: int = serve(6, "requests that would wait for so many images are refused, per core", ge=0, le=10_000)
    serve_timeout: float = serve(30.0, "an accepted request that takes longer is given up [seconds]", gt=0)
    serve_requestsPerMinute: int | None = serve(
        None, "of one address, or one network of IPv6 addresses (/64); none: no limit", ge=1
    )
    serve_trustedProxies: tuple[str, ...] = serve(
        (),
        "addresses or networks of proxies that are believed (X-Forwarded-For, -Proto, -Prefix, Forwarded); no others",
    )
    serve_allowedHosts: tuple[str, ...] = serve(
        (),
        "host names that requests may be for, any port, *.name for all below one; none given: on a loopback address "
        "names of this machine only, else any",
    )
    serve_rootPath: str = serve("", "path before the service's own, where a proxy has it below one, e.g. /cells")

    def network_options(self) -> "NetworkOptions":
        """Which pretrained network is meant; here since several scripts want it."""
        from libraries.network.graphs.load import GraphOptions
        from libraries.network.pretrained import NetworkOptions

        return NetworkOptions(
            self.rf_pretrainedModelFilename,
            self.rf_inputResolution,
            self.rf_resizeMode,
            self.rf_views,
            GraphOptions(self.rf_embeddingNode, self.rf_channelOrder, self.rf_channelMeans, self.rf_channelStds),
        )
