"""Updates of the map of relays."""

from __future__ import annotations

from tsrt.tailcfg import DERPHomeParams, DERPMap


def mergeDERPMaps(former: DERPMap, update: DERPMap) -> DERPMap:
    """
    Apply an update to a map of relays.

    Regions that are C{None} are gone; where the update has no regions at all
    the former ones stay.  So do the scores, while empty ones make all regions
    alike.
    """
    scores = update.homeParams.regionScore if update.homeParams else None
    if scores is None and former.homeParams is not None:
        scores = former.homeParams.regionScore
    params = None if scores is None else DERPHomeParams(regionScore=scores)
    if update.regions is None:
        return DERPMap(
            homeParams=params,
            regions=former.regions,
            omitDefaultRegions=former.omitDefaultRegions,
        )
    return DERPMap(
        homeParams=params,
        regions={n: r for n, r in update.regions.items() if r is not None and n > 0},
        omitDefaultRegions=update.omitDefaultRegions,
    )
