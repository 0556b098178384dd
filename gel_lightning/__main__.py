from gel_lightning.cli import main

raise SystemExit(main())
