"""Readers of annotation tools' formats: labelme, YOLO, CVAT, label images, Label Studio, LVIS, VOC, BOP, ADE20K, YTVIS.

Each translates its files to COCO content (`bcnet.data.importers.content`), which the COCO reader's rules apply to
(`bcnet.data.coco`): whatever one reader refuses or repairs, all do. `bcnet.data.catalog` registers them.
"""
