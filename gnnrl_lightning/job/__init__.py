"""A job, part by part: checked, trained, searched, delivered.

```
checked = check(task, Budget(macs=0.5), Options())
trained = train(checked, folder)
searched = search(trained, GNNRL(), folder)
delivered = deliver(searched, folder)
```
"""

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.job.checked import Checked, check
from gnnrl_lightning.job.compress import compress
from gnnrl_lightning.job.compress_by_score import Compressed, compress_by_score
from gnnrl_lightning.job.delivery import Delivered, deliver
from gnnrl_lightning.job.job import Job, Runtime
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.prediction import predict
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.searching import Searching, begin, search
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.finals import FinalsOptions
from gnnrl_lightning.search.options import SearchOptions

__all__ = [
    "CandidateOptions",
    "Checked",
    "Compressed",
    "Delivered",
    "DeliveryOptions",
    "EpisodeOptions",
    "FinalsOptions",
    "Job",
    "Options",
    "RunFolder",
    "Runtime",
    "ScoringOptions",
    "SearchOptions",
    "Searched",
    "Searching",
    "StageOptions",
    "Task",
    "Trained",
    "begin",
    "check",
    "compress",
    "compress_by_score",
    "deliver",
    "predict",
    "search",
    "train",
]
