"""Block-wisely supervised NAS with knowledge distillation (DNA, 1911.13053).

    from pipeline.methods.dna.cutting import cut_teacher
    from pipeline.methods.dna.run import run_dna
    from pipeline.spaces.dna.space import DnaSpace, DnaSpaceConfig
    from pipeline.work.folder import WorkFolder

    cut = cut_teacher(teacher.module, dataset.input_shape)
    config = DnaSpaceConfig.for_teacher(cut.shapes, dataset.input_shape)
    space = DnaSpace(config, dataset.input_shape, len(dataset.classes))
    found = run_dna(
        space, cut, dataset, DnaSettings(), models=models, limits=limits_ns, work=WorkFolder(folder), seed=0
    )
    found.selected[0].architecture

docs/methods/dna.md says what is done, and where the paper leaves a choice. Importing this package, its
``settings`` and its ``result`` imports no torch.
"""
