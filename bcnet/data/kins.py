"""Reader of KINS (KITTI INStance, Qi et al., CVPR 2019): the files of 2019 and those of February 2020.

==========================  ============================  =======================================
content                     2020, ``update_*_2020.json``  2019, ``instances_*.json``
==========================  ============================  =======================================
amodal mask and box         ``a_segm``, ``a_bbox``        ``segmentation``, ``bbox``
visible mask and box        ``i_segm``, ``i_bbox``        ``inmodal_seg`` (RLE), ``inmodal_bbox``
depth order                 ``oco_id``, ``ico_id``        none: all neighbours count as occluders
classes                     8 ("rider" is unused)         7
==========================  ============================  =======================================

Everything else is as in COCO, and malformed content is handled as in the table of `bcnet.data.coco`, with the
exceptions of `amodal_annotation`.

Depth order, according to the data set's README: the instances of an image form clusters of connected instances,
``oco_id``; ``ico_id`` is the rank in the cluster by distance to the camera, 0 for instances that overlap no other.
Hence, of two instances of a cluster, the one with the smaller ``ico_id`` lies in front. Instances of different
clusters, or of equal rank, do not occlude each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from bcnet.data.amodal import amodal_annotation
from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import image_label, read_coco_json, read_number, short
from bcnet.data.findings import Findings
from bcnet.data.order import Pairs
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import DatasetInfo, ImageRecord


def load_kins(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a KINS json; arguments, return values and errors as in `bcnet.data.coco.load_coco`."""
    return read_annotations(read_coco_json(annotation_file), annotation_file, image_root, name, format=_KINS)


def _translate(annotation: dict, record: ImageRecord, findings: Findings) -> dict | None:
    if "a_segm" in annotation:
        visible, amodal, bbox, amodal_bbox = "i_segm", "a_segm", "i_bbox", "a_bbox"
        for key in ("oco_id", "ico_id"):
            read_number(key, annotation.get(key))
    elif "inmodal_seg" in annotation:
        visible, amodal, bbox, amodal_bbox = "inmodal_seg", "segmentation", "inmodal_bbox", "bbox"
    else:
        raise ValueError(
            "it has neither a_segm (KINS of 2020) nor inmodal_seg (2019), "
            f"its keys are {short(sorted(annotation))}; is this a KINS file?"
        )
    return amodal_annotation(
        annotation,
        record,
        findings,
        visible=annotation.get(visible),
        amodal=annotation.get(amodal),
        bbox=annotation.get(bbox),
        amodal_bbox=annotation.get(amodal_bbox),
    )


def _cluster_order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    ranks = {
        index: (annotation["oco_id"], annotation["ico_id"])
        for index, annotation in enumerate(annotations)
        if not record.instances[index].iscrowd
        and annotation.get("oco_id") is not None
        and annotation.get("ico_id") is not None
    }
    if len(ranks) < sum(not instance.iscrowd for instance in record.instances):
        if ranks:
            what = "images in which only some objects have oco_id and ico_id, depth order ignored"
            findings.note(what, image_label(record))
        return None
    return [
        (i, j)
        for i, (cluster, rank) in ranks.items()
        for j, (other_cluster, other_rank) in ranks.items()
        if cluster == other_cluster and other_rank < rank
    ]


_KINS = AnnotationFormat(translate=_translate, order=_cluster_order, has_area=False)
